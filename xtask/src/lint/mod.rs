//! Everything that is checked without running the software.

mod deny;
mod dependencies;
mod files;
mod license;
mod security;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{
    ebpf::{self, Cpu, Opt, Variant, Warnings},
    manifests,
    privilege::Privilege,
    process,
    setup::{self, Part},
    workspace,
};

/// A check by its name.
type Check = (&'static str, fn() -> Result<()>);

/// Cheap ones first.
const CHECKS: [Check; 10] = [
    ("Cargo.lock", lock),
    ("format", format),
    ("files", files::check),
    ("guide to security", security::check),
    ("dependencies", dependencies::check),
    ("manifests", manifests::check),
    ("clippy", clippy),
    ("documents", documents),
    ("clippy of the kernel programs", ebpf::clippy),
    ("kernel programs", objects),
];

/// The combinations that must build, and load.
const VARIANTS: [Variant; 4] = [
    Variant {
        opt: Opt::Two,
        cpu: Cpu::V3,
    },
    Variant {
        opt: Opt::Two,
        cpu: Cpu::V4,
    },
    Variant {
        opt: Opt::Three,
        cpu: Cpu::V3,
    },
    Variant {
        opt: Opt::Three,
        cpu: Cpu::V4,
    },
];

/// `cargo xtask lint`: runs all checks, then fails if one failed.
pub fn run() -> Result<()> {
    setup::ensure(&[Part::Bpf, Part::Lint])?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        eprintln!("lint: {name}");
        if let Err(error) = check() {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!(
            "{} of {} checks failed: {}",
            failed.len(),
            CHECKS.len(),
            failed.join(", ")
        );
    }
    eprintln!("lint: all {} checks passed", CHECKS.len());
    Ok(())
}

fn lock() -> Result<()> {
    workspace::metadata(&["--locked"])
        .map(drop)
        .context("Cargo.lock does not fit the Cargo.toml files: build once and commit it")
}

fn format() -> Result<()> {
    process::run(workspace::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    let mut command = workspace::cargo();
    process::run(command.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))
}

fn documents() -> Result<()> {
    let mut command = workspace::cargo();
    command.env("RUSTDOCFLAGS", "-D warnings");
    process::run(command.args([
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]))
}

/// Builds all variants and lets the lab look into them: no panic, no byte loop of `mem*`, and the kernel takes them.
fn objects() -> Result<()> {
    let mut objects: Vec<PathBuf> = Vec::new();
    for variant in VARIANTS {
        let object = workspace::root()
            .join("target/bpf")
            .join(variant.name())
            .join("sluice-ebpf");
        ebpf::build_to(variant, &object, Warnings::Denied)?;
        objects.push(object);
    }
    process::run(workspace::cargo().args(["build", "--workspace", "--bin", "sluice-lab"]))?;
    let lab = workspace::target_dir()?.join("debug/sluice-lab");
    let privilege = Privilege::find();
    let mut command = match &privilege {
        Privilege::None(reason) => {
            eprintln!("not loading the kernel programs: {reason}");
            let mut command = std::process::Command::new(lab);
            command.args(["bpf-check", "--no-load"]);
            command
        }
        Privilege::Root | Privilege::Sudo(_) => {
            let mut command = privilege.command([("RUST_BACKTRACE", "0".into())], lab)?;
            command.arg("bpf-check");
            command
        }
    };
    process::run(command.args(objects))
}
