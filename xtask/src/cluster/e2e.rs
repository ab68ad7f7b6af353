//! Kubernetes' own tests against a cluster.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use super::{Extra, Which, images, network, node, prepare, state::State};
use crate::process;

/// The conformance tests of the network.
const FOCUS: &str = r"\[sig-network\].*\[Conformance\]";
/// Tests that break machines, take long, run alone or need a cloud.
const SKIP: &str = r"Disruptive|Slow|Serial|LoadBalancer";

/// Options of `cargo xtask cluster e2e`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only tests whose name matches.
    #[arg(long, value_name = "REGEX", default_value = FOCUS)]
    focus: String,
    /// No tests whose name matches.
    #[arg(long, value_name = "REGEX", default_value = SKIP)]
    skip: String,
    /// How many tests at once.
    #[arg(long, default_value_t = 4)]
    procs: u8,
    /// Which cluster.
    #[command(flatten)]
    which: Which,
}

/// `cargo xtask cluster e2e`.
pub fn run(args: &Args) -> Result<()> {
    let state = State::load(&args.which.name)?;
    let programs = prepare(Extra::Tests)?;
    for number in state.nodes() {
        node::import(&state, &programs, number, &images::of_e2e(&programs)?)?;
    }
    let log = state.dir("e2e.log");
    let mut command = state.machine(network::CONTROL_PLANE)?.command("env");
    command
        // Its runner panics when it is started in the root folder.
        .arg(format!("--chdir={}", state.root.display()))
        .arg(programs.kubernetes("ginkgo"))
        .arg(format!("--procs={}", args.procs))
        .args(["--no-color", "--timeout=2h"])
        .arg(format!("--focus={}", args.focus))
        .arg(format!("--skip={}", args.skip))
        .arg(programs.kubernetes("e2e.test"))
        .arg("--")
        .arg(format!("--kubeconfig={}", state.kubeconfig.display()))
        .args(["--provider=skeleton", "--allowed-not-ready-nodes=0"])
        .arg("--node-os-distro=debian");
    eprintln!("+ {}", process::describe(&command));
    eprintln!("its whole output goes to {}", log.display());
    let out = fs::File::create(&log)?;
    let status = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .status()
        .context("cannot start ginkgo")?;
    summarise(&log)?;
    if !status.success() {
        bail!("Kubernetes' tests failed: {status}");
    }
    Ok(())
}

/// Prints what the log says about the whole and about failures.
fn summarise(log: &std::path::Path) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for line in BufReader::new(fs::File::open(log)?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        let tells = ["Ran ", "FAIL!", "SUCCESS!", "  [FAIL]"];
        if tells.iter().any(|word| line.starts_with(word)) && seen.insert(line.clone()) {
            println!("{line}");
        }
    }
    Ok(())
}
