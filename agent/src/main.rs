//! The `sluice` binary.

use std::io;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use sluice::args::{AgentArgs, Cli, Command};
use sluice::cli::{self, Unreachable};
use sluice::config::Settings;
use sluice::run;
use tracing_subscriber::EnvFilter;

/// Exit codes beside 0, and 2, which the command line's own errors have.
mod exit {
    /// It failed.
    pub const FAILED: u8 = 1;
    /// No agent answers.
    pub const UNREACHABLE: u8 = 3;
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Agent(args) => agent(args, &cli),
        _ => cli::run(&cli),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice: {error:#}");
            let unreachable = error.downcast_ref::<Unreachable>().is_some();
            ExitCode::from(if unreachable {
                exit::UNREACHABLE
            } else {
                exit::FAILED
            })
        }
    }
}

fn agent(args: &AgentArgs, cli: &Cli) -> Result<()> {
    let settings = Settings::load(args, cli.socket.clone())?;
    let filter = EnvFilter::try_new(&settings.log).with_context(|| {
        format!(
            "--log {:?}; write a level like info, or sluice=debug",
            settings.log
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the event loop")?;
    runtime.block_on(run::run(settings))
}
