//! The tasks that the lab performs: demo and benchmarks.

use std::ffi::OsString;

use anyhow::Result;

use crate::{
    build::{self, Profile},
    cluster::{self, Extra},
    privilege::Privilege,
    process,
    setup::{self, Part},
};

/// The options of the benchmark that need Kubernetes' own programs.
const WITH_KUBERNETES: [&str; 3] = ["--control-plane", "--proxies", "--policy"];

/// Those that measure the agent itself, which is then built as it is shipped.
const OF_THE_AGENT: [&str; 2] = ["--control-plane", "--policy"];

/// What is handed to the lab as it is.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Options of the lab's command, for instance `--json FILE`; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// Prepares the machine, builds, and runs a command of the lab as root.
pub fn run(name: &str, args: Args) -> Result<()> {
    setup::ensure(&[Part::Kernel, Part::Programs, Part::Bpf])?;
    let asks_for = |options: &[&str]| {
        let mut asked = args.args.iter();
        asked.any(|arg| options.iter().any(|option| arg == option))
    };
    let mut variables = Vec::new();
    if asks_for(&WITH_KUBERNETES) {
        variables.extend(cluster::variables(&cluster::prepare(Extra::KubeProxy)?));
    }
    let shipped = asks_for(&OF_THE_AGENT);
    let built = build::all(if shipped {
        Profile::Dist
    } else {
        Profile::Release
    })?;
    variables.extend(built.variables());
    let mut command = Privilege::find().command(variables, &built.lab)?;
    process::run(command.arg(name).args(args.args))
}
