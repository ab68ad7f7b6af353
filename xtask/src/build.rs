//! Building everything that runs.

use std::{ffi::OsString, path::PathBuf};

use anyhow::Result;

use crate::{
    ebpf, process,
    setup::{self, Part},
    workspace,
};

/// Options of `cargo xtask build`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// With optimisation.
    #[arg(long, conflicts_with = "dist")]
    release: bool,
    /// As it is shipped: with optimisation across crates, without symbols.
    #[arg(long)]
    dist: bool,
}

/// A profile of the root `Cargo.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// For tests.
    Dev,
    /// For measurements of packets.
    Release,
    /// For users, and for measurements of the agent.
    Dist,
}

/// What a build gives to the programs that use it.
#[derive(Debug)]
pub struct Built {
    /// The agent and command line.
    pub sluice: PathBuf,
    /// The lab: namespaces, traffic, measurements.
    pub lab: PathBuf,
    /// The kernel programs.
    pub object: PathBuf,
}

/// `cargo xtask build`.
pub fn run(args: &Args) -> Result<()> {
    let profile = match args {
        Args { dist: true, .. } => Profile::Dist,
        Args { release: true, .. } => Profile::Release,
        Args { .. } => Profile::Dev,
    };
    setup::ensure(&[Part::Bpf])?;
    let built = all(profile)?;
    eprintln!(
        "built {} and {}",
        built.sluice.display(),
        built.lab.display()
    );
    Ok(())
}

/// Builds the kernel programs, then the programs that embed or use them.
pub fn all(profile: Profile) -> Result<Built> {
    ebpf::build(ebpf::Variant::default())?;
    let mut command = workspace::cargo();
    // Always the whole workspace: another choice of packages is another choice of features, and compiles dependencies again.
    command.args([
        "build",
        "--workspace",
        "--bin",
        "sluice",
        "--bin",
        "sluice-lab",
        "--profile",
        profile.name(),
    ]);
    process::run(&mut command)?;
    let dir = workspace::target_dir()?.join(profile.dir());
    Ok(Built {
        sluice: dir.join("sluice"),
        lab: dir.join("sluice-lab"),
        object: workspace::bpf_object(),
    })
}

impl Built {
    /// The variables by which tests and the lab find what was built.
    pub fn variables(&self) -> [(&'static str, OsString); 3] {
        [
            ("SLUICE_BIN", self.sluice.clone().into()),
            ("SLUICE_LAB_BIN", self.lab.clone().into()),
            ("SLUICE_BPF_OBJECT", self.object.clone().into()),
        ]
    }
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Release => "release",
            Self::Dist => "dist",
        }
    }

    /// The folder that cargo puts it into.
    fn dir(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release | Self::Dist => self.name(),
        }
    }
}
