//! The lab's program: `cargo xtask demo` and `cargo xtask bench` run it.

mod serve;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use sluice_lab::{bench, bpf_check, demo, run};

/// Clusters of network namespaces on this machine.
#[derive(Debug, Parser)]
#[command(name = "sluice-lab", version)]
enum Command {
    /// Runs the scenario of the examples on real kernel programs and says what it measured.
    Demo(demo::Args),
    /// Measures Sluice beside its alternatives and says whether the promised ratios hold.
    Bench(bench::Args),
    /// Checks BPF objects: no panics, no byte loops, and the kernel takes every program.
    BpfCheck(bpf_check::Args),
    /// Removes labs that were kept.
    Remove(RemoveArgs),
    /// Runs a server; the lab starts these in its pods.
    #[command(hide = true)]
    Serve(serve::Args),
    /// Answers a timed client; the benchmark starts these in its pods.
    #[command(hide = true)]
    BenchServer(bench::traffic::Args),
    /// Times transactions as it is told; the benchmark starts these in its pods.
    #[command(hide = true)]
    BenchClient(bench::traffic::Args),
}

/// Which labs to remove.
#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// The ids; none: all that were kept.
    ids: Vec<String>,
}

fn main() -> Result<ExitCode> {
    match Command::parse() {
        Command::Demo(args) => demo::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::BpfCheck(args) => bpf_check::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Remove(args) => remove(&args).map(|()| ExitCode::SUCCESS),
        Command::Serve(args) => serve::run(args).map(|()| ExitCode::SUCCESS),
        Command::BenchServer(args) => bench::traffic::run_server(&args).map(|()| ExitCode::SUCCESS),
        Command::BenchClient(args) => bench::traffic::run_client(&args).map(|()| ExitCode::SUCCESS),
    }
}

fn remove(args: &RemoveArgs) -> Result<()> {
    let kept = run::list()?
        .into_iter()
        .filter(|(_, kept)| *kept)
        .map(|(id, _)| id);
    let ids = if args.ids.is_empty() {
        kept.collect()
    } else {
        args.ids.clone()
    };
    for id in ids {
        run::remove(&id)?;
        println!("removed {id}");
    }
    Ok(())
}
