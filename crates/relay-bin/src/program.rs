//! The program: arguments, environment, signals and exit code. No other file accesses the process.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::sync::oneshot;

use crate::check_token;
use crate::cli::{Cli, Command};
#[cfg(feature = "redb")]
use crate::commands::{self, CommandError, Outcome};
use crate::config::{Loaded, RelayConfig, Sources};
use crate::docs;
use crate::error::{EXIT_CONFIG, EXIT_FAILED, RelayError};
use crate::health;
use crate::keygen::{self, KeygenArgs};
use crate::logging::{self, LogFilter};
use crate::passed_sockets::PassedSockets;
use crate::running::{RunningRelay, start_supervised};
use crate::service_manager::ServiceManager;
use crate::supervision::Supervision;

/// The command line is invalid.
const EXIT_USAGE: u8 = 2;

/// Threads for signals, sweeps and certificates. Requests have threads of their own.
const RUNTIME_THREADS: usize = 1;

/// Runs the program with the arguments and environment of the process, and returns its exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return print_usage(&error),
    };
    match cli.command {
        Some(Command::Completions { shell }) => return print_docs(Ok(docs::completions(shell))),
        Some(Command::Man) => return print_docs(docs::man()),
        _ => {}
    }
    let (command, format, environment) = (cli.command_or_serve(), cli.options.log_format, environment());
    let log = (!is_quiet(&command)).then(|| {
        let filter = environment.iter().find(|(name, _)| name == logging::FILTER_VARIABLE);
        logging::start(format, filter.map(|(_, filter)| filter.as_str()))
    });
    #[cfg(unix)]
    if command == Command::Serve && rustix::process::geteuid().is_root() {
        tracing::warn!("running as root, which the relay never needs; run it as a user of its own");
    }
    let sources = cli.options.into_sources(environment.clone());
    let Loaded { config, warnings } = match RelayConfig::load(sources.clone()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprint(&errors);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match command {
        Command::CheckConfig => {
            warnings.iter().for_each(|warning| eprint(&format_args!("warning: {warning}")));
            exit_code_of_output(print(&config.to_toml()), ExitCode::SUCCESS)
        }
        #[cfg(feature = "postgres")]
        Command::Migrate { set_slots } => report(commands::migrate(&config, set_slots)),
        #[cfg(feature = "redb")]
        Command::Store(command) => report(commands::run(command, &config)),
        Command::Serve => serve(config, sources, &environment, log),
        Command::Health(args) => print_or_fail(health::check(args, &config)),
        Command::Keygen(args) => print_keys(args),
        Command::Completions { .. } | Command::Man => ExitCode::SUCCESS,
        Command::CheckToken(args) => {
            let checked = check_token::check(&args, &config.auth, io::stdin().lock());
            print_or_fail(checked.map(|()| "the proof opens the recipient".to_owned()))
        }
    }
}

/// Whether a command has no log, but only its output.
const fn is_quiet(command: &Command) -> bool {
    matches!(command, Command::CheckConfig | Command::Health(_) | Command::Keygen(_) | Command::CheckToken(_))
}

/// Prints one line, or an error.
fn print_or_fail(outcome: Result<String, impl Display>) -> ExitCode {
    match outcome {
        Ok(line) => exit_code_of_output(print(&format!("{line}\n")), ExitCode::SUCCESS),
        Err(error) => {
            eprint(&error);
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn print_docs(text: io::Result<Vec<u8>>) -> ExitCode {
    exit_code_of_output(text.and_then(|text| print_bytes(&text)), ExitCode::SUCCESS)
}

fn print_keys(args: KeygenArgs) -> ExitCode {
    match keygen::run(args) {
        Ok(lines) => exit_code_of_output(print(&lines), ExitCode::SUCCESS),
        Err(error) => {
            eprint(&error);
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Prints the help or the version that was asked for, or a usage error.
fn print_usage(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    if error.use_stderr() {
        ExitCode::from(EXIT_USAGE)
    } else {
        exit_code_of_output(printed, ExitCode::SUCCESS)
    }
}

#[cfg(feature = "redb")]
fn report(outcome: Result<Outcome, CommandError>) -> ExitCode {
    match outcome {
        Ok(Outcome { text, success, to_stderr }) => {
            let code = if success { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) };
            if to_stderr {
                eprint(&text.trim_end());
                return code;
            }
            exit_code_of_output(print(&text), code)
        }
        Err(error) => {
            eprint(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn serve(
    config: RelayConfig,
    sources: Sources,
    environment: &[(String, String)],
    log: Option<LogFilter>,
) -> ExitCode {
    let manager = ServiceManager::from_environment(environment);
    // There are no threads yet, which could read the environment while its variables are removed.
    let sockets = PassedSockets::from_environment(environment).map_err(RelayError::PassedSockets);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).enable_all().build();
    let started = sockets.and_then(|sockets| Ok((sockets, runtime.map_err(RelayError::Serve)?)));
    let outcome = started.and_then(|(sockets, runtime)| {
        let serving = serve_until_signal(config, sources, &manager, sockets, log);
        let outcome = runtime.block_on(serving);
        // The process does not wait for blocking tasks that still use the disk.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprint(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

async fn serve_until_signal(
    config: RelayConfig,
    sources: Sources,
    manager: &ServiceManager,
    sockets: PassedSockets,
    log: Option<LogFilter>,
) -> Result<(), RelayError> {
    let (mut supervision, reloader, monitor) = Supervision::new(sockets);
    supervision.log = log;
    supervision.configuration = Some(Arc::new(move || RelayConfig::load(sources.clone())));
    let (mut signals, mut hangups) = Signals::listen().map_err(RelayError::Serve)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let mut serving = pin!(async {
        tokio::select! {
            ended = serve_until_stopped(config, manager, supervision, stopped) => ended,
            () = manager.watch(monitor) => Ok(()),
            () = async {
                loop {
                    hangups.next().await;
                    manager.reload(&reloader).await;
                }
            } => Ok(()),
        }
    });
    tokio::select! {
        ended = &mut serving => return ended,
        () = signals.stop() => {}
    }
    tracing::info!("stopping: finishing accepted requests, rejecting new ones");
    manager.stopping();
    // This fails only if the relay has ended, which `serving` reports.
    let _: Result<(), ()> = stop.send(());
    tokio::select! {
        ended = &mut serving => ended,
        () = signals.stop() => {
            tracing::warn!("second signal; exiting at once");
            std::process::exit(i32::from(EXIT_FAILED));
        }
    }
}

/// Serves until `stopped` resolves, which can happen before the store is open.
async fn serve_until_stopped(
    config: RelayConfig,
    manager: &ServiceManager,
    supervision: Supervision,
    stopped: oneshot::Receiver<()>,
) -> Result<(), RelayError> {
    let stop = async { drop(stopped.await) };
    let RunningRelay { base_url, shutdown: _, handle } = start_supervised(config, supervision, stop).await?;
    if !handle.is_finished() {
        manager.ready();
        // The relay also serves if standard output is closed.
        drop(print(&format!("listening on {base_url}\n")));
    }
    handle.await.unwrap_or_else(|error| Err(RelayError::Serve(io::Error::other(error))))
}

/// The signals that stop the relay.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

/// SIGHUP, the request to reload files.
struct Hangups {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl Hangups {
    /// Resolves with the next signal, if there is ever one.
    async fn next(&mut self) {
        #[cfg(unix)]
        if self.signal.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(unix)]
impl Signals {
    /// Listens from now on.
    fn listen() -> io::Result<(Self, Hangups)> {
        use tokio::signal::unix::{SignalKind, signal};
        let hangups = Hangups { signal: signal(SignalKind::hangup())? };
        let signals =
            Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        Ok((signals, hangups))
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<(Self, Hangups)> {
        Ok((Self {}, Hangups {}))
    }

    async fn stop(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

/// The environment. Text that is not Unicode is replaced, so that the configuration rejects it.
fn environment() -> Vec<(String, String)> {
    let lossy = |text: OsString| text.to_string_lossy().into_owned();
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment, for the configuration"
    )]
    let variables = std::env::vars_os();
    variables.map(|(name, value)| (lossy(name), lossy(value))).collect()
}

fn print(text: &str) -> io::Result<()> {
    print_bytes(text.as_bytes())
}

fn print_bytes(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(text).and_then(|()| stdout.flush())
}

/// Returns `code`, or a failure if the output is incomplete. A reader that closed the output needs
/// no more of it.
fn exit_code_of_output(printed: io::Result<()>, code: ExitCode) -> ExitCode {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprint(&format_args!("cannot write to standard output: {error}"));
            ExitCode::from(EXIT_FAILED)
        }
        _ => code,
    }
}

/// Prints a line to standard error. Unlike `eprintln`, it ignores a closed output.
fn eprint(line: &dyn Display) {
    drop(writeln!(io::stderr(), "{line}"));
}
