//! `relay-cli`: pushes, pulls and watches from a terminal or a script. Everything that it knows of
//! the relay is in relay-client.
//!
//! Proofs come from a file or the environment, never from the command line, where others could see
//! them.

mod bench;
mod cli;
mod clock;
mod demo;
mod docs;
mod exit;
mod failure;
mod keygen;
mod output;
mod progress;
mod proofs;
mod push;
mod queue;
mod session;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::output::Output;
use crate::session::{Environment, Session};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::of_usage(&error),
    };
    let output = Output::new(cli.options.json);
    match run(cli, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => exit::report(&failure, &output),
    }
}

fn run(cli: Cli, output: &Output) -> Result<(), Failure> {
    let Cli { command, options } = cli;
    match command {
        Command::Keygen(args) => return keygen::run(&args, output),
        Command::Completions { shell } => return docs::completions(shell, output),
        Command::Man => return docs::man(output),
        _ => {}
    }
    let session = Session::open(&options, Environment::of_process())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(async {
        match command {
            Command::Push(args) => push::run(&session, &args, output).await,
            Command::Pull(args) => queue::pull(&session, &args, output).await,
            Command::Watch(args) => watch::run(&session, &args, output).await,
            Command::Ack(args) => queue::ack(&session, &args, output).await,
            Command::Purge(args) => queue::purge(&session, &args, output).await,
            Command::Info => queue::info(&session, output).await,
            Command::Demo(args) => demo::run(&session, &args, output).await,
            Command::Bench(args) => bench::run(&session, &args, output).await,
            Command::Keygen(_) | Command::Completions { .. } | Command::Man => Ok(()),
        }
    });
    // A read of standard input may block for ever.
    runtime.shutdown_background();
    result
}
