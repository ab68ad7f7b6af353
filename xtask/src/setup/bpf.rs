//! The toolchain of the kernel programs.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::{Finding, Fix, apt};
use crate::{
    privilege::Privilege,
    process,
    toolchain::{Compiler, LINKER_LLVMS, LINKER_VERSION, Linker, Route, oldest_compiler},
    workspace,
};

/// Debian's compiler that ships `core` for BPF. Cargo is the one that runs this program.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "libstd-rust-web-dev-bpf", "rust-web-llvm"];

const LINKER: &str = "bpf-linker";

/// The compiler and the linker.
pub fn look() -> Vec<Finding> {
    const COMPILER: &str = "compiler for the kernel programs";
    let Some(compiler) = Compiler::find() else {
        return vec![
            Finding::missing(
                COMPILER,
                format!(
                    "neither a Rust {} or newer that ships core for BPF nor a nightly with rust-src",
                    oldest_compiler()
                ),
                "`cargo xtask setup` installs Debian's rustc-web, or else rustup's nightly with rust-src",
                Some(Fix::Compiler),
            ),
            Finding::missing(
                LINKER,
                "its LLVM must fit the compiler, which is missing",
                "`cargo xtask setup` looks for it, and else builds it, after installing the compiler",
                Some(Fix::Linker),
            ),
        ];
    };
    let linker = match Linker::find(&compiler) {
        Ok(linker) => Finding::present(
            LINKER,
            format!("{} {}", linker.path.display(), linker.version),
        ),
        Err(error) => Finding::missing(
            LINKER,
            format!("{error:#}"),
            "`cargo xtask setup` builds it (about 3 minutes on two cores)",
            Some(Fix::Linker),
        ),
    };
    vec![Finding::present(COMPILER, compiler.describe()), linker]
}

/// The lints of the compiler for the kernel programs.
pub fn clippy() -> Finding {
    const NAME: &str = "clippy for the kernel programs";
    match Compiler::find().and_then(|compiler| compiler.clippy_driver()) {
        Some(driver) => Finding::present(NAME, driver.display().to_string()),
        None => Finding::missing(
            NAME,
            "not installed",
            "`cargo xtask setup` installs Debian's rust-web-clippy, or the component of the nightly",
            Some(Fix::BpfClippy),
        ),
    }
}

/// Installs a compiler: Debian's if apt has one that is new enough, else rustup's nightly.
pub fn install_compiler(privilege: &Privilege) -> Result<()> {
    let debian = apt::candidate(privilege, DEBIAN_COMPILER[1]).unwrap_or_else(|error| {
        eprintln!("cannot ask apt for a compiler ({error:#})");
        None
    });
    if debian.is_some_and(|version| version >= oldest_compiler()) {
        return apt::install(privilege, &DEBIAN_COMPILER);
    }
    eprintln!(
        "apt has no {} {} or newer: on Debian it comes with the security updates (`deb http://deb.debian.org/debian-security bookworm-security main`)",
        DEBIAN_COMPILER[1],
        oldest_compiler()
    );
    let rustup = process::find("rustup")
        .context("there is no rustup either, to install a nightly: see https://rustup.rs")?;
    eprintln!("installing rustup's nightly with rust-src");
    let known = process::output(Command::new(&rustup).args(["toolchain", "list"]))?;
    let mut command = Command::new(rustup);
    // A nightly that is already here keeps its date: other work may depend on it.
    if known
        .lines()
        .any(|line| line.starts_with("nightly-") && !line.starts_with("nightly-2"))
    {
        command.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
    } else {
        command.args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ]);
    }
    process::run(&mut command)
}

/// Builds the linker with the LLVM of the compiler.
///
/// Its default feature wants the newest LLVM, which neither Debian nor the compiler has, so the feature is always named.
pub fn install_linker(privilege: &Privilege) -> Result<()> {
    let compiler =
        Compiler::find().context("bpf-linker must fit the compiler, and there is none")?;
    // Installing the compiler may have been all it took.
    if Linker::find(&compiler).is_ok() {
        return Ok(());
    }
    let llvm = compiler.rustc.llvm_major;
    if !LINKER_LLVMS.contains(&llvm) {
        bail!(
            "bpf-linker {LINKER_VERSION} has no support for LLVM {llvm} of {}: {}",
            compiler.describe(),
            by_hand()
        );
    }
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let prefix = Path::new(&prefix);
    if !prefix.join("include/llvm-c").is_dir() {
        let package = format!("llvm-{llvm}-dev");
        if apt::candidate(privilege, &package)?.is_none() {
            bail!(
                "bpf-linker needs the libraries of LLVM {llvm}, and there is no package {package}: {}",
                by_hand()
            );
        }
        apt::install(privilege, &[&package])?;
    }
    eprintln!(
        "building bpf-linker {LINKER_VERSION} with LLVM {llvm}: about 3 minutes on two cores"
    );
    let mut command = workspace::foreign_cargo();
    process::prepend_path(&mut command, &prefix.join("bin"))?;
    let feature = format!("llvm-{llvm}");
    command
        .args([
            "install",
            LINKER,
            "--version",
            LINKER_VERSION,
            "--locked",
            "--force",
        ])
        .args(["--no-default-features", "--features", &feature]);
    process::run(&mut command)
}

/// Installs the lints that fit the compiler.
pub fn install_clippy(privilege: &Privilege) -> Result<()> {
    let compiler = Compiler::find().context("clippy must fit the compiler, and there is none")?;
    match compiler.route {
        _ if compiler.clippy_driver().is_some() => Ok(()),
        Route::Shipped => apt::install(privilege, &["rust-web-clippy"]),
        Route::BuildStd => {
            let toolchain = compiler
                .rustc
                .sysroot
                .file_name()
                .context("a toolchain has a folder")?;
            let rustup = process::find("rustup")
                .context("there is no rustup to add clippy to the nightly")?;
            process::run(
                Command::new(rustup)
                    .args(["component", "add", "clippy", "--toolchain"])
                    .arg(toolchain),
            )
        }
    }
}

fn by_hand() -> &'static str {
    "let apt have Debian's security updates, whose rustc-web and LLVM fit, or put a program from https://github.com/aya-rs/bpf-linker/releases (which has LLVM in it) into PATH"
}
