//! Loading the programs of an object, without attaching or pinning them.

use std::{fs, path::Path, time::Instant};

use anyhow::{Context, Result, bail};
use aya::{
    Btf, EbpfLoader,
    programs::{Program, ProgramError, ProgramInfo},
};
use dataplane_common::abi::{Config, bytes_of, config_flags};

/// A loaded program.
#[derive(Debug)]
pub struct Loaded {
    /// Its name.
    pub name: String,
    /// Instructions after the kernel's rewriting.
    pub translated: u64,
    /// Bytes of machine code.
    pub machine_code: u64,
    /// Instructions that the verifier walked.
    pub verified: u64,
    /// Milliseconds that loading took.
    pub milliseconds: f64,
}

/// Loads all programs of an object with everything switched on, in the order of their names. Their maps have their default
/// capacities and go away again.
///
/// # Errors
/// The kernel refuses a map; in the place of a program, why the kernel refuses it.
pub fn load(path: &Path) -> Result<Vec<Result<Loaded>>> {
    let object = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let config = everything();
    let btf = Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
    let mut ebpf = EbpfLoader::new()
        .btf(Some(&btf))
        .override_global("CONFIG", bytes_of(&config), true)
        .load(&object)
        .with_context(|| format!("the maps of {}", path.display()))?;
    let mut programs: Vec<(&str, &mut Program)> = ebpf.programs_mut().collect();
    if programs.is_empty() {
        bail!("{} has no programs", path.display());
    }
    programs.sort_by_key(|(name, _)| *name);
    Ok(programs
        .into_iter()
        .map(|(name, program)| load_one(name, program))
        .collect())
}

fn load_one(name: &str, program: &mut Program) -> Result<Loaded> {
    let started = Instant::now();
    load_program(program).with_context(|| format!("program {name}"))?;
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    let info = program
        .info()
        .with_context(|| format!("asking about program {name}"))?;
    Ok(describe(name, &info, milliseconds))
}

fn load_program(program: &mut Program) -> Result<()> {
    let result: Result<(), ProgramError> = match program {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::Xdp(program) => program.load(),
        other => bail!(
            "its type {:?} is none that the agent attaches",
            other.prog_type()
        ),
    };
    result.map_err(Into::into)
}

fn describe(name: &str, info: &ProgramInfo, milliseconds: f64) -> Loaded {
    Loaded {
        name: name.to_owned(),
        translated: u64::from(info.size_translated().unwrap_or(0)) / 8,
        machine_code: info.size_jitted().into(),
        verified: info.verified_instruction_count().unwrap_or(0).into(),
        milliseconds,
    }
}

/// Settings with which nothing is pruned.
fn everything() -> Config {
    use config_flags::{CSUM_IPV6, POLICE_HAIRPIN, POLICE_NODE_EGRESS, POLICY, REDIRECT, SERVICES};
    Config {
        netns_cookie: 1,
        flags: SERVICES | POLICY | REDIRECT | POLICE_NODE_EGRESS | POLICE_HAIRPIN | CSUM_IPV6,
        hz: 250,
        snat_first: 61_000,
        snat_count: 4_000,
        half_open_per_pod: 10_000,
        half_open_total: 100_000,
        error_rate: 100,
        event_rate: 1_000,
        reserved: 0,
    }
}
