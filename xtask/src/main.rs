//! Developer tasks: `cargo xtask <task>`.

mod build;
mod cluster;
mod ebpf;
mod guest;
mod lab;
mod lint;
mod manifests;
mod privilege;
mod process;
mod setup;
mod test;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Developer tasks",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find, or install, what this machine needs.
    Setup(setup::Args),
    /// Build the kernel programs to target/bpf/sluice-ebpf.
    BuildEbpf(ebpf::Variant),
    /// Build the kernel programs, the agent and the lab.
    Build(build::Args),
    /// Check formatting, lints, documents, dependencies and the kernel programs.
    Lint,
    /// Render the Helm chart into deploy/manifests.
    Manifests,
    /// Run the tests; the last line is `N passed, N failed`.
    Test(test::Args),
    /// Run a test program in a guest, with the files that its variables name.
    #[command(hide = true)]
    GuestRun(guest::Args),
    /// A real Kubernetes cluster on this machine.
    Cluster(cluster::Args),
    /// Run the guide's scenario and print what was measured.
    #[command(disable_help_flag = true)]
    Demo(lab::Args),
    /// Measure Sluice beside its alternatives.
    #[command(disable_help_flag = true)]
    Bench(lab::Args),
}

fn main() -> ExitCode {
    match perform(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<()> {
    match task {
        Task::Setup(args) => setup::run(&args),
        Task::BuildEbpf(variant) => {
            setup::ensure(&[setup::Part::Bpf])?;
            ebpf::build(variant)
        }
        Task::Build(args) => build::run(&args),
        Task::Lint => lint::run(),
        Task::Manifests => manifests::write(),
        Task::Test(args) => test::run(&args),
        Task::GuestRun(args) => guest::run(&args),
        Task::Cluster(args) => cluster::run(args),
        Task::Demo(args) => lab::run("demo", args),
        Task::Bench(args) => lab::run("bench", args),
    }
}
