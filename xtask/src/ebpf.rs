//! Building the kernel programs.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::Value;

use crate::{
    process,
    toolchain::{BPF_TARGET, Route, Toolchain},
    workspace,
};

/// How the kernel programs are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct Variant {
    /// Optimisation level.
    #[arg(long, default_value = "2", value_enum)]
    pub opt: Opt,
    /// Instruction set: v3 runs on every supported kernel, v4 needs 6.6.
    #[arg(long, default_value = "v3", value_enum)]
    pub cpu: Cpu,
}

/// Optimisation level of the kernel programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Opt {
    /// The default.
    #[value(name = "2")]
    Two,
    /// Larger, not measurably faster.
    #[value(name = "3")]
    Three,
    /// For size.
    #[value(name = "s")]
    Size,
}

/// BPF instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cpu {
    /// Linux 5.1 and later.
    V3,
    /// Linux 6.6 and later.
    V4,
}

/// Whether a warning of the compiler is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warnings {
    /// Shown only.
    Shown,
    /// Shown, and the build fails.
    Denied,
}

impl Default for Variant {
    fn default() -> Self {
        Self {
            opt: Opt::Two,
            cpu: Cpu::V3,
        }
    }
}

impl Variant {
    /// A name for files and messages.
    pub fn name(self) -> String {
        format!("O{}-{}", self.opt.level(), self.cpu.name())
    }
}

impl Opt {
    fn level(self) -> &'static str {
        match self {
            Self::Two => "2",
            Self::Three => "3",
            Self::Size => "s",
        }
    }
}

impl Cpu {
    fn name(self) -> &'static str {
        match self {
            Self::V3 => "v3",
            Self::V4 => "v4",
        }
    }
}

/// Builds the object that the agent embeds.
pub fn build(variant: Variant) -> Result<()> {
    let object = workspace::bpf_object();
    build_to(variant, &object, Warnings::Shown)
}

/// Builds one variant to `destination`, which is written only when its bytes change: cargo then rebuilds nothing that embeds it.
pub fn build_to(variant: Variant, destination: &Path, warnings: Warnings) -> Result<()> {
    let toolchain = Toolchain::find()?;
    let built = compile(&toolchain, variant, warnings)?;
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(destination).is_ok_and(|old| old == bytes) {
        eprintln!(
            "kernel programs {}: {} is up to date",
            variant.name(),
            destination.display()
        );
        return Ok(());
    }
    write_whole(destination, &bytes)?;
    eprintln!(
        "kernel programs {}: wrote {} ({} bytes)",
        variant.name(),
        destination.display(),
        bytes.len()
    );
    Ok(())
}

/// Runs clippy on what only compiles for BPF; a warning is an error.
pub fn clippy() -> Result<()> {
    let toolchain = Toolchain::find()?;
    let driver = toolchain
        .compiler
        .clippy_driver()
        .context("no clippy for the kernel programs: run `cargo xtask setup`")?;
    let mut command = command(&toolchain, Variant::default(), "check")?;
    // What `cargo clippy` does, which a toolchain outside rustup has no such command for.
    command
        .env("RUSTC_WORKSPACE_WRAPPER", driver)
        .env("CLIPPY_ARGS", "-Dwarnings__CLIPPY_HACKERY__");
    perform(command, &toolchain)?;
    Ok(())
}

/// Compiles with cargo and returns where cargo left the object.
fn compile(toolchain: &Toolchain, variant: Variant, warnings: Warnings) -> Result<PathBuf> {
    let report = perform(command(toolchain, variant, "build")?, toolchain)?;
    if warnings == Warnings::Denied && report.warnings > 0 {
        bail!(
            "building the kernel programs gave {} warnings, and warnings are denied here",
            report.warnings
        );
    }
    report
        .executable
        .context("cargo built no sluice-ebpf: dataplane-ebpf has no such program")
}

/// Runs cargo, showing what the compiler says.
fn perform(mut command: Command, toolchain: &Toolchain) -> Result<Report> {
    eprintln!(
        "+ {} # with {}",
        process::describe(&command),
        toolchain.compiler.describe()
    );
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let stdout = child
        .stdout
        .take()
        .context("cargo has no standard output")?;
    let report = read_messages(BufReader::new(stdout))?;
    let status = child.wait().context("cannot wait for cargo")?;
    if !status.success() {
        bail!("building the kernel programs failed");
    }
    Ok(report)
}

fn command(toolchain: &Toolchain, variant: Variant, subcommand: &str) -> Result<Command> {
    let compiler = &toolchain.compiler;
    let mut command = match compiler.route {
        Route::Shipped => workspace::clean_cargo(),
        // Cargo must be of the nightly too: a stable one refuses -Z.
        Route::BuildStd => workspace::clean_cargo_of(&compiler.rustc.path.with_file_name("cargo")),
    };
    command
        .args([
            subcommand,
            "--package",
            "dataplane-ebpf",
            "--bin",
            "sluice-ebpf",
        ])
        .args([
            "--target",
            BPF_TARGET,
            "--profile",
            "bpf",
            "--message-format",
            "json",
        ])
        .env("RUSTC", &compiler.rustc.path)
        .env(
            "CARGO_TARGET_DIR",
            workspace::root().join("target/bpf-build"),
        )
        .env("CARGO_PROFILE_BPF_OPT_LEVEL", variant.opt.level())
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            rust_flags(&toolchain.linker, variant.cpu).join("\x1f"),
        );
    match compiler.route {
        // The compiler is a stable one; inline assembler for BPF is an unstable feature.
        Route::Shipped => command.env("RUSTC_BOOTSTRAP", "1"),
        Route::BuildStd => command.args(["-Z", "build-std=core"]),
    };
    if let Some(dir) = compiler.llvm_bin() {
        process::prepend_path(&mut command, &dir)?;
    }
    Ok(command)
}

fn rust_flags(linker: &Path, cpu: Cpu) -> [String; 5] {
    [
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".into(),
        "-Cdebuginfo=2".into(),
        format!("-Ctarget-cpu={}", cpu.name()),
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
    ]
}

/// What cargo's JSON messages said.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    executable: Option<PathBuf>,
    warnings: usize,
}

/// Reads cargo's messages to their end, showing the compiler's as they come.
fn read_messages(messages: impl BufRead) -> Result<Report> {
    let mut report = Report::default();
    for line in messages.lines() {
        let line = line.context("cannot read what cargo says")?;
        let Ok(message) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        match message["reason"].as_str() {
            Some("compiler-message") => {
                eprint!(
                    "{}",
                    message["message"]["rendered"].as_str().unwrap_or_default()
                );
                report.warnings += usize::from(message["message"]["level"] == "warning");
            }
            Some("compiler-artifact") => {
                if let Some(path) = message["executable"].as_str() {
                    report.executable = Some(path.into());
                }
            }
            _ => {}
        }
    }
    Ok(report)
}

/// Replaces a file as a whole, so that no reader sees half of it.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().context("a file has a folder")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let partial = path.with_extension(format!("{}.partial", std::process::id()));
    fs::write(&partial, bytes).with_context(|| format!("cannot write {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_messages_give_the_object_and_the_warnings() {
        let messages = concat!(
            r#"{"reason":"compiler-message","message":{"level":"warning","rendered":""}}"#,
            "\nnot JSON\n",
            r#"{"reason":"compiler-artifact","executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","executable":"/t/sluice-ebpf"}"#,
            "\n",
        );
        let report = read_messages(messages.as_bytes()).unwrap();
        assert_eq!(
            report,
            Report {
                executable: Some("/t/sluice-ebpf".into()),
                warnings: 1
            }
        );
    }

    #[test]
    fn every_variant_has_its_own_name() {
        assert_eq!(Variant::default().name(), "O2-v3");
        assert_eq!(
            Variant {
                opt: Opt::Size,
                cpu: Cpu::V4
            }
            .name(),
            "Os-v4"
        );
    }
}
