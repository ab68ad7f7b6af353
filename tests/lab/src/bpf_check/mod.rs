//! Looks into BPF objects: nothing may panic or loop over bytes, and the kernel must take every program.

mod code;
mod elf;
mod load;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use code::Code;
use elf::Elf;
use load::Loaded;

/// Options of `bpf-check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only look into the files: loading needs root.
    #[arg(long)]
    no_load: bool,
    /// The objects.
    #[arg(required = true)]
    objects: Vec<PathBuf>,
}

/// Checks objects and prints one line of JSON for each loaded program.
///
/// # Errors
/// What is wrong with any of them.
pub fn run(args: &Args) -> Result<()> {
    let mut faults = Vec::new();
    for object in &args.objects {
        let code = read(object)?;
        let mut found = code.faults();
        if !args.no_load {
            for program in load::load(object)? {
                match program {
                    Ok(program) => println!("{}", describe(object, &code, &program)),
                    Err(error) => found.push(format!("{error:#}")),
                }
            }
        }
        faults.extend(
            found
                .iter()
                .map(|fault| format!("{}: {fault}", object.display())),
        );
    }
    if !faults.is_empty() {
        bail!(
            "{} faults in BPF objects:\n{}",
            faults.len(),
            faults.join("\n")
        );
    }
    Ok(())
}

/// Loads the programs of an object and says what each costs: `program`, `instructions` (in the object, with what it calls),
/// `translated` (after the kernel's rewriting), `machine_code_bytes`, `verified` (instructions that the verifier walked),
/// `stack_bytes`, `load_ms`.
///
/// # Errors
/// The object cannot be read, or the kernel refuses a program.
pub fn programs(object: &Path) -> Result<Vec<Value>> {
    let code = read(object)?;
    load::load(object)?
        .into_iter()
        .map(|program| program.map(|program| describe(object, &code, &program)))
        .collect()
}

fn describe(object: &Path, code: &Code, program: &Loaded) -> Value {
    json!({
        "object": object.display().to_string(),
        "program": program.name,
        "instructions": code.instructions(&program.name),
        "translated": program.translated,
        "machine_code_bytes": program.machine_code,
        "verified": program.verified,
        "stack_bytes": code.stack(&program.name),
        "load_ms": (program.milliseconds * 10.0).round() / 10.0,
    })
}

fn read(object: &Path) -> Result<Code> {
    let file = fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
    let elf = Elf::parse(&file).with_context(|| format!("{}", object.display()))?;
    Ok(Code::of(&elf))
}
