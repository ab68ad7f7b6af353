//! The demo: the scenario of `examples/`, played for real, a row for each promise.

mod balance;
mod canary;
mod faults;
mod outside;
mod policy;
mod scenario;
mod updates;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::report::splice;
use crate::topology::{Cluster, Cni};
use scenario::Scenario;

/// Options of the demo.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also write the rows to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also put the rows into a document, between `<!-- demo -->` and `<!-- end demo -->`.
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// Leave everything running, to look around.
    #[arg(long)]
    keep: bool,
    /// How the nodes join their pods; both: node-1 point to point, node-2 by a bridge.
    #[arg(long, value_enum, default_value = "both")]
    cni: Style,
}

/// The nodes' styles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Style {
    /// Both nodes point to point.
    Ptp,
    /// Both nodes by a bridge.
    Bridge,
    /// One of each.
    Both,
}

impl Style {
    fn nodes(self) -> [Cni; 2] {
        match self {
            Style::Ptp => [Cni::Ptp, Cni::Ptp],
            Style::Bridge => [Cni::Bridge, Cni::Bridge],
            Style::Both => [Cni::Ptp, Cni::Bridge],
        }
    }
}

/// Plays the scenario and prints the table; a failure when a promise does not hold.
///
/// # Errors
/// The lab cannot be made, or the JSON file cannot be written.
pub fn run(args: &Args) -> Result<ExitCode> {
    let begun = Instant::now();
    let cluster = Cluster::of(&args.cni.nodes())?;
    if args.keep {
        cluster.run().make_lasting();
    }
    let mut scenario = Scenario::start(cluster)?;
    scenario.step("ClusterIP", balance::cluster_ip);
    scenario.step("readiness", balance::readiness);
    scenario.step("UDP", balance::datagrams);
    scenario.step("rolling update", updates::rolling);
    scenario.step("blue-green", updates::blue_green);
    scenario.step("canary by replicas", canary::by_replicas);
    scenario.step("canary by weight", canary::by_weight);
    scenario.step("NodePort", outside::node_port);
    scenario.step("killed backend", faults::killed_backend);
    scenario.step("killed agent", faults::killed_agent);
    scenario.step("NetworkPolicy", policy::guide);
    let report = scenario.report();
    print!("\n{report}");
    println!(
        "\n{} promises, {:.0} s",
        report.rows().len(),
        begun.elapsed().as_secs_f64()
    );
    if let Some(file) = &args.json {
        report.write_json(file)?;
    }
    if let Some(file) = &args.document {
        splice(file, "demo", &report.to_markdown())?;
    }
    let ok = report.ok();
    if args.keep {
        scenario.keep()?;
    }
    Ok(if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
