//! The guest's file system: the programs under test, what they call, and the kernel's modules.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{BEGIN, END, Kernel};
use crate::process;

/// Modules by folder or file: networking, and what that needs.
const MODULES: [&str; 4] = ["net", "lib", "crypto", "drivers/net/veth.ko"];
/// Those that are loaded at the start.
const LOADED: &str = "veth bridge sctp sch_ingress cls_bpf";
/// Programs that the tests call, beside their own.
const TOOLS: [&str; 2] = ["ip", "tc"];
/// The tests' own programs and files, by the variable that names each.
const OWN: [&str; 3] = ["SLUICE_BIN", "SLUICE_LAB_BIN", "SLUICE_BPF_OBJECT"];
/// How many times slower than this machine the guest may be.
const SLOWNESS: u32 = 10;

/// Makes the image in a folder that does not exist yet. Returns its file.
pub fn make(
    folder: &Path,
    kernel: &Kernel,
    program: &Path,
    arguments: &[String],
) -> Result<PathBuf> {
    let root = folder.join("root");
    for dir in ["proc", "sys", "dev", "tmp", "run", "etc", "root"] {
        fs::create_dir_all(root.join(dir))?;
    }
    add_modules(&root, kernel)?;
    let mut programs = vec![(program.to_owned(), "test".to_owned())];
    let mut variables = String::new();
    for name in OWN {
        let path = env::var_os(name).with_context(|| format!("{name} is not set"))?;
        programs.push((path.into(), name.to_lowercase()));
        variables += &format!("export {name}=/own/{}\n", name.to_lowercase());
    }
    for (from, name) in programs {
        add_own(&root, &from, &name)?;
    }
    for tool in TOOLS.into_iter().chain(["busybox"]) {
        let path = process::find(tool).with_context(|| format!("there is no program {tool}"))?;
        add(&root, &path, &Path::new("/bin").join(tool))?;
        add_libraries(&root, &path)?;
    }
    let init = root.join("init");
    fs::write(&init, script(&variables, arguments))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    pack(folder)
}

/// What the guest does: it mounts what a system has, runs the program and turns itself off.
fn script(variables: &str, arguments: &[String]) -> String {
    let quoted = arguments.iter().map(|word| format!("'{word}'"));
    let arguments = quoted.collect::<Vec<_>>().join(" ");
    format!(
        "#!/bin/busybox sh
/bin/busybox mkdir -p /busybox && /bin/busybox --install -s /busybox
export PATH=/bin:/busybox SLUICE_SLOWNESS={SLOWNESS}
{variables}mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
for module in {LOADED}; do modprobe $module; done
ip link set lo up
echo '{BEGIN}'
uname -r
/own/test {arguments} 2>&1
echo \"{END}$?\"
poweroff -f
"
    )
}

fn add_modules(root: &Path, kernel: &Kernel) -> Result<()> {
    let to = root.join("lib/modules").join(&kernel.release);
    for name in MODULES {
        let from = kernel.modules().join("kernel").join(name);
        let target = to.join("kernel").join(name);
        let parent = target.parent().context("a module has a folder")?;
        fs::create_dir_all(parent)?;
        process::run(Command::new("cp").arg("-r").args([&from, &target]))?;
    }
    for name in ["modules.builtin", "modules.order"] {
        let from = kernel.modules().join(name);
        fs::copy(&from, to.join(name))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    process::run(
        Command::new("busybox")
            .args(["depmod", "-b"])
            .arg(root)
            .arg(&kernel.release),
    )
}

/// Adds a program of ours, or a file, without what only a debugger reads.
fn add_own(root: &Path, from: &Path, name: &str) -> Result<()> {
    let to = Path::new("/own").join(name);
    add(root, from, &to)?;
    // The object of kernel programs is to stay as it is.
    if name != "sluice_bpf_object" {
        process::run(Command::new("strip").arg(inside(root, &to)))?;
        add_libraries(root, from)?;
    }
    Ok(())
}

/// Adds the shared libraries of a program.
fn add_libraries(root: &Path, program: &Path) -> Result<()> {
    // It fails for a program that has none.
    let said = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd")?;
    for path in libraries(&String::from_utf8_lossy(&said.stdout)) {
        add(root, Path::new(path), Path::new(path))?;
    }
    Ok(())
}

/// The paths in what `ldd` prints.
fn libraries(said: &str) -> Vec<&str> {
    let words = said.split_whitespace();
    words.filter(|word| word.starts_with('/')).collect()
}

fn add(root: &Path, from: &Path, to: &Path) -> Result<()> {
    let to = inside(root, to);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Packs the folder `root` as the kernel unpacks it (`Documentation/driver-api/early-userspace`).
fn pack(folder: &Path) -> Result<PathBuf> {
    let image = folder.join("image.gz");
    let words = "cd \"$0/root\" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 > \"$0/image.gz\"";
    process::run(Command::new("sh").arg("-c").arg(words).arg(folder))?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let said = "\tlinux-vdso.so.1 (0x00007)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007)\n\t/lib64/ld.so (0x00007)\n";
        assert_eq!(libraries(said), ["/lib/x/libc.so.6", "/lib64/ld.so"]);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn the_program_gets_its_arguments_as_they_are() {
        let script = script("", &["sctp::".into(), "--test-threads=1".into()]);
        assert!(script.contains("/own/test 'sctp::' '--test-threads=1' 2>&1"));
    }
}
