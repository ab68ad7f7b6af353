//! The command line: asks the agent and prints what it answers.

pub mod check;
mod client;
pub mod dump;
mod flow;
mod policy;
mod service;
mod show;
mod wait;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::explain::ServiceDetail;
use crate::admin::protocol::{Conntrack, Frontend, Request, Status};
use crate::args::{
    AgentArgs, Cli, CniCommand, Command, ConfigCommand, ConntrackCommand, Output, ServiceCommand,
};
use crate::bpf;
use crate::cni::install::uninstall;
use crate::config::{CniDirs, File, Loaded, Settings};
pub use client::Unreachable;

/// Runs a command other than `agent`.
///
/// # Errors
///
/// What went wrong; [`Unreachable`] if no agent answers.
pub fn run(cli: &Cli) -> Result<()> {
    let socket = cli.socket();
    match &cli.command {
        Command::Agent(_) => Ok(()),
        Command::Status(args) => {
            ask::<Status>(&socket, &Request::Status, args.output, show::status)
        }
        Command::Service(ServiceCommand::List { namespace, output }) => {
            list_services(&socket, namespace.as_deref(), output.output)
        }
        Command::Service(ServiceCommand::Show {
            name,
            namespace,
            output,
        }) => {
            let request = Request::Service {
                namespace: namespace.clone(),
                name: name.clone(),
            };
            ask::<ServiceDetail>(&socket, &request, output.output, service::show)
        }
        Command::Check(args) => check::run(&socket, args),
        Command::Policy(command) => policy::run(&socket, command),
        Command::Conntrack(ConntrackCommand::List { limit, output }) => {
            let request = Request::Conntrack { limit: *limit };
            ask::<Conntrack>(&socket, &request, output.output, show::conntrack)
        }
        Command::Flow(args) => flow::run(&socket, args),
        Command::Cleanup(args) => {
            let report = bpf::cleanup(&args.bpffs)
                .with_context(|| format!("cleaning up {}", args.bpffs.display()))?;
            print(&format!(
                "removed {} links, {} programs and {} maps",
                report.links, report.programs, report.maps
            ))
        }
        Command::Cni(CniCommand::Uninstall {
            cni_bin_dir,
            cni_conf_dir,
        }) => uninstall_cni(
            &socket,
            &CniDirs {
                bin: cni_bin_dir.clone(),
                conf: cni_conf_dir.clone(),
            },
        ),
        Command::Dump(args) => dump::dump(args),
        Command::Config(ConfigCommand::Print { effective, agent }) => {
            print_settings(agent, *effective, cli.socket.clone())
        }
    }
}

fn uninstall_cni(socket: &Path, dirs: &CniDirs) -> Result<()> {
    // One that is away cannot put it back.
    if let Ok(status) = client::ask::<Status>(socket, &Request::Status)
        && status
            .modes
            .get("cni")
            .is_some_and(|mode| mode == "install")
    {
        bail!(
            "the agent at {} would install the CNI plugin again: end it, or start it without --cni-install",
            socket.display()
        );
    }
    let removed = uninstall(dirs)?;
    if removed.is_empty() {
        return print("nothing was installed");
    }
    removed
        .iter()
        .try_for_each(|file| print(&format!("removed {}", file.display())))
}

fn ask<T: DeserializeOwned + Serialize>(
    socket: &Path,
    request: &Request,
    output: Output,
    table: impl Fn(&T) -> String,
) -> Result<()> {
    let answer: T = client::ask(socket, request)?;
    print_as(&answer, output, table)
}

fn print_as<T: Serialize>(answer: &T, output: Output, table: impl Fn(&T) -> String) -> Result<()> {
    let text = match output {
        Output::Json => serde_json::to_string_pretty(answer)?,
        Output::Yaml => serde_saphyr::to_string(answer)?,
        Output::Table | Output::Wide => table(answer),
    };
    print(text.trim_end())
}

fn list_services(socket: &Path, namespace: Option<&str>, output: Output) -> Result<()> {
    let mut list: Vec<Frontend> = client::ask(socket, &Request::Services)?;
    if let Some(namespace) = namespace {
        let prefix = format!("{namespace}/");
        list.retain(|frontend| frontend.service.starts_with(&prefix));
    }
    let wide = output == Output::Wide;
    print_as(&list, output, |list| service::list(list, wide))
}

fn print_settings(agent: &AgentArgs, effective: bool, socket: Option<PathBuf>) -> Result<()> {
    let file = if effective {
        let Loaded { settings, warning } = Settings::load(agent, socket)?;
        if let Some(warning) = warning {
            eprintln!("sluice: {warning}");
        }
        File::from(&settings)
    } else {
        Settings::asked(agent, socket)?
    };
    let text = serde_saphyr::to_string(&file).context("writing the settings as YAML")?;
    print(text.trim_end())
}

fn print(text: &str) -> Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("writing the output"),
    }
}
