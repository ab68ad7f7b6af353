//! The `sluice` binary.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use sluice::args::{AgentArgs, Cli, Command};
use sluice::cli::{self, Unreachable};
use sluice::cni::plugin;
use sluice::config::{self, Loaded, Reload, Settings};
use sluice::run;
use tracing::warn;
use tracing_subscriber::EnvFilter;

/// glibc's allocator keeps what was freed below memory that is in use. This one's settings stand in
/// `.cargo/config.toml`.
#[cfg(target_env = "gnu")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Exit codes beside 0.
mod exit {
    /// It failed.
    pub const FAILED: u8 = 1;
    /// The command line or the settings are wrong; the parser of the command line exits so too.
    pub const USAGE: u8 = 2;
    /// No agent answers.
    pub const UNREACHABLE: u8 = 3;
}

fn main() -> ExitCode {
    if plugin::is_called() {
        return plugin::main();
    }
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Agent(args) => agent(args, &cli),
        _ => cli::run(&cli),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice: {}", text(&error));
            ExitCode::from(code(&error))
        }
    }
}

/// The error with its causes, those left out that it tells itself.
fn text(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match (text.is_empty(), text.contains(&cause)) {
            (true, _) => cause,
            (false, true) => text,
            (false, false) => format!("{text}: {cause}"),
        }
    })
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<Unreachable>() {
        exit::UNREACHABLE
    } else if error.is::<config::Error>() {
        exit::USAGE
    } else {
        exit::FAILED
    }
}

fn agent(args: &AgentArgs, cli: &Cli) -> Result<()> {
    let Loaded { settings, warning } = Settings::load(args, cli.socket.clone())?;
    start_logging(&settings)?;
    if let Some(warning) = warning {
        warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the event loop")?;
    runtime.block_on(async {
        let reload = Reload::new(args, cli.socket.clone(), settings.clone());
        run::run(settings, reload).await
    })
}

fn start_logging(settings: &Settings) -> Result<()> {
    let filter = EnvFilter::try_new(&settings.log).with_context(|| {
        format!(
            "--log {:?}; write a level like info, or sluice=debug",
            settings.log
        )
    })?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    if settings.log_json {
        logs.json().init();
    } else {
        logs.init();
    }
    Ok(())
}
