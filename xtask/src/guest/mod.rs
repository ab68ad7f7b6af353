//! Tests in a guest: an emulated machine with a kernel that is older than this one's, and has what this
//! one may lack (SCTP sockets).

mod image;

use std::{
    env,
    ffi::OsString,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    cluster::Programs,
    process,
    setup::{self, Part},
};

/// Debian's package that depends on its kernel for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";
/// What the guest prints before its tests, and, with the status, behind them.
const BEGIN: &str = "guest: begin";
const END: &str = "guest: end ";
/// Seconds after which a guest is ended that has not ended itself.
const LIMIT: &str = "900";

/// Options of `cargo xtask guest-run`, which cargo calls to run a test program.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The program.
    program: PathBuf,
    /// Its arguments.
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    arguments: Vec<String>,
}

/// True if this machine can run the guest: Debian's packages are for amd64.
pub fn is_possible() -> bool {
    cfg!(target_arch = "x86_64") && process::find("apt-get").is_some()
}

/// Gets the emulator and the kernel.
pub fn prepare() -> Result<()> {
    setup::ensure(&[Part::Guest])?;
    Kernel::get().map(drop)
}

/// Runs a program in a guest and ends as it does.
pub fn run(args: &Args) -> Result<()> {
    let kernel = Kernel::get()?;
    let folder = kernel
        .folder
        .with_file_name(format!("run-{}", std::process::id()));
    let image = image::make(&folder, &kernel, &args.program, &args.arguments)
        .context("cannot make the guest's file system");
    let status = image.and_then(|image| boot(&kernel, &image));
    std::fs::remove_dir_all(&folder)
        .with_context(|| format!("cannot remove {}", folder.display()))?;
    std::process::exit(status?);
}

/// Starts the guest and passes on what the program writes. Returns its exit status.
fn boot(kernel: &Kernel, image: &Path) -> Result<i32> {
    let mut qemu = Command::new("timeout");
    qemu.args([LIMIT, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max"])
        .args([
            "-smp",
            "2",
            "-m",
            "3G",
            "-nographic",
            "-no-reboot",
            "-kernel",
        ])
        .arg(kernel.file())
        .arg("-initrd")
        .arg(image)
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = qemu.spawn().context("cannot start qemu-system-x86_64")?;
    let stdout = child.stdout.take().context("qemu has no output")?;
    let mut lines = BufReader::new(stdout).split(b'\n');
    let mut status = None;
    let mut begun = false;
    for line in &mut lines {
        let line = line.context("cannot read what the guest says")?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if begun && let Some(said) = line.strip_prefix(END) {
            status = said.parse().ok();
        } else if begun && status.is_none() {
            println!("{line}");
        }
        begun |= line.ends_with(BEGIN);
    }
    child.wait().context("cannot wait for qemu")?;
    status.with_context(|| format!("the guest did not end its tests within {LIMIT} s, or died"))
}

/// A kernel, unpacked from its package.
struct Kernel {
    /// Where.
    folder: PathBuf,
    /// Its release, as `uname -r` says.
    release: String,
}

impl Kernel {
    /// Fetches the kernel that Debian offers now, unless it is there.
    fn get() -> Result<Self> {
        let said = process::output(Command::new("apt-cache").args(["depends", KERNEL]))?;
        let Some(package) = dependency(&said) else {
            bail!("apt knows no {KERNEL}: let it have Debian's packages, and run apt-get update");
        };
        let release = package.trim_start_matches("linux-image-").to_owned();
        let guests = Programs::find()?.cache().join("guest");
        let folder = guests.join(&release);
        let kernel = Self { folder, release };
        if kernel.file().is_file() {
            return Ok(kernel);
        }
        eprintln!("fetching {package}");
        let staging = guests.join(format!("staging-{}", std::process::id()));
        std::fs::create_dir_all(&staging)
            .with_context(|| format!("cannot make {}", staging.display()))?;
        process::run(
            Command::new("apt-get")
                .current_dir(&staging)
                // Root may write where the user who fetches must not read.
                .args(["-o", "APT::Sandbox::User=root", "download", package]),
        )?;
        let fetched = std::fs::read_dir(&staging)?
            .flatten()
            .map(|file| file.path());
        let archive = fetched
            .into_iter()
            .find(|path| path.extension().is_some_and(|end| end == "deb"))
            .context("apt-get download left no package")?;
        let unpacked = staging.join("unpacked");
        process::run(
            Command::new("dpkg-deb")
                .arg("-x")
                .args([&archive, &unpacked]),
        )?;
        std::fs::rename(&unpacked, &kernel.folder)
            .with_context(|| format!("cannot make {}", kernel.folder.display()))?;
        std::fs::remove_dir_all(&staging)
            .with_context(|| format!("cannot remove {}", staging.display()))?;
        Ok(kernel)
    }

    fn file(&self) -> PathBuf {
        self.folder.join(format!("boot/vmlinuz-{}", self.release))
    }

    fn modules(&self) -> PathBuf {
        self.folder.join("lib/modules").join(&self.release)
    }
}

/// The kernel's package among the dependencies that `apt-cache depends` prints.
fn dependency(said: &str) -> Option<&str> {
    said.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
}

/// The words by which cargo runs a test program in the guest.
pub fn runner(variables: &[(&'static str, OsString)]) -> Result<Vec<OsString>> {
    let mut words = vec![OsString::from("env")];
    for (name, value) in variables {
        let mut word = OsString::from(name);
        word.push("=");
        word.push(value);
        words.push(word);
    }
    words.push(
        env::current_exe()
            .context("this program has no path")?
            .into(),
    );
    words.push("guest-run".into());
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_the_package_depends_on() {
        let said = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-50-cloud-amd64\n";
        assert_eq!(dependency(said), Some("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(dependency("linux-image-cloud-amd64\n"), None);
    }
}
