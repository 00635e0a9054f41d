//! The program: arguments, environment, signals, exit code. The only place that looks at the
//! process.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::sync::{Notify, oneshot};

#[cfg(feature = "redb")]
use crate::cli::StoreCommand;
use crate::cli::{Cli, Command};
#[cfg(feature = "redb")]
use crate::commands;
use crate::config::{Loaded, RelayConfig, Sources};
use crate::error::{EXIT_CONFIG, EXIT_FAILED, RelayError};
use crate::logging;
use crate::running::{RunningRelay, start_reloadable};

/// The command line was not understood.
const EXIT_USAGE: u8 = 2;

/// Threads for what is not a request: signals, the sweep, the certificates. Requests have their
/// own.
const RUNTIME_THREADS: usize = 1;

/// Runs the program on the process's arguments and environment, and tells how it ended.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked) => return answer_usage(&asked),
    };
    let (command, format, environment) = (cli.command_or_serve(), cli.options.log_format, environment());
    let filter = environment.iter().find(|(name, _)| name == logging::FILTER_VARIABLE);
    let filter = filter.map(|(_, filter)| filter.clone());
    let sources = cli.options.into_sources(environment);
    match command {
        Command::CheckConfig => check_config(sources),
        #[cfg(feature = "redb")]
        Command::Store(command) => {
            logging::start(format, filter.as_deref());
            run_store_command(command, sources)
        }
        Command::Serve => {
            logging::start(format, filter.as_deref());
            serve(sources)
        }
    }
}

/// `--help` and `--version` are answers, everything else is a mistake.
fn answer_usage(asked: &clap::Error) -> ExitCode {
    let printed = asked.print();
    if asked.use_stderr() { ExitCode::from(EXIT_USAGE) } else { unless_lost(printed, ExitCode::SUCCESS) }
}

fn check_config(sources: Sources) -> ExitCode {
    match RelayConfig::load(sources) {
        Ok(Loaded { config, warnings }) => {
            warnings.iter().for_each(|warning| complain(&format!("warning: {warning}")));
            unless_lost(print(&config.to_toml()), ExitCode::SUCCESS)
        }
        Err(errors) => {
            complain(&errors);
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

#[cfg(feature = "redb")]
fn run_store_command(command: StoreCommand, sources: Sources) -> ExitCode {
    let config = match RelayConfig::load(sources) {
        Ok(loaded) => loaded.config,
        Err(errors) => {
            complain(&errors);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match commands::run(command, &config) {
        Ok(outcome) => {
            let code = if outcome.is_good { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) };
            if outcome.is_aside {
                complain(&outcome.text.trim_end());
                return code;
            }
            unless_lost(print(&outcome.text), code)
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn serve(sources: Sources) -> ExitCode {
    #[cfg(unix)]
    if rustix::process::geteuid().is_root() {
        tracing::warn!("running as root, which the relay never needs; give it a user of its own");
    }
    let config = match RelayConfig::load(sources) {
        Ok(loaded) => loaded.config,
        Err(errors) => {
            complain(&errors);
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(serve_until_told(config));
            // Whatever still hangs on the disk has had its time.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(RelayError::Serve(error)),
    };
    match outcome {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

async fn serve_until_told(config: RelayConfig) -> Result<(), RelayError> {
    let reload = Arc::new(Notify::new());
    let mut signals = Signals::listen(&reload).map_err(RelayError::Serve)?;
    let (stop, stopped) = oneshot::channel::<()>();
    let mut serving = pin!(serve_to_the_end(config, reload, stopped));
    tokio::select! {
        ended = &mut serving => return ended,
        () = signals.stop() => {}
    }
    tracing::info!("stopping: finishing accepted requests, rejecting new ones");
    // Fails only when the relay has ended by itself, which it tells.
    let _: Result<(), ()> = stop.send(());
    tokio::select! {
        ended = &mut serving => ended,
        () = signals.stop() => {
            tracing::warn!("second signal; exiting at once");
            std::process::exit(i32::from(EXIT_FAILED));
        }
    }
}

/// Serves until `stopped`, which may come before the store is open.
async fn serve_to_the_end(
    config: RelayConfig,
    reload: Arc<Notify>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), RelayError> {
    // The sender lives as long as this.
    let told = async { drop(stopped.await) };
    let RunningRelay { base_url, shutdown: _, handle } = start_reloadable(config, reload, told).await?;
    if !handle.is_finished() {
        // Who cannot be told this is no reason not to serve.
        drop(print(&format!("listening on {base_url}\n")));
    }
    handle.await.unwrap_or_else(|error| Err(RelayError::Serve(io::Error::other(error))))
}

/// What the system tells the process to do.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Listens from now on. SIGHUP asks for the certificates to be read anew.
    fn listen(reload: &Arc<Notify>) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut hangup, reload) = (signal(SignalKind::hangup())?, Arc::clone(reload));
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                reload.notify_one();
            }
        });
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
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
    fn listen(_: &Arc<Notify>) -> io::Result<Self> {
        Ok(Self {})
    }

    async fn stop(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

/// The environment, for the configuration. What is not Unicode is handed on as far as it is, to be
/// complained about.
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
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
}

/// With which code to end when this became of what was printed. Who takes half of an answer for all
/// of it must learn of it; who has closed the output wants no more of it.
fn unless_lost(printed: io::Result<()>, code: ExitCode) -> ExitCode {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format_args!("what was asked for cannot be written to standard output: {error}"));
            ExitCode::from(EXIT_FAILED)
        }
        _ => code,
    }
}

fn complain(what: &dyn Display) {
    drop(writeln!(io::stderr(), "{what}"));
}
