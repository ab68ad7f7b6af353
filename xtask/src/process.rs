//! Running other programs.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Says what is run, runs it with this terminal and fails when it fails.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", describe(command));
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    if !status.success() {
        bail!("{} failed: {status}", describe(command));
    }
    Ok(())
}

/// Runs a program silently and returns its standard output; its standard error is part of the error.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", describe(command)))?;
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        bail!(
            "{} failed: {}: {}",
            describe(command),
            out.status,
            stderr.trim()
        );
    }
    String::from_utf8(out.stdout)
        .with_context(|| format!("{} wrote something that is not UTF-8", describe(command)))
}

/// Where a program is: in `PATH`, or in the system folders that `PATH` of a plain user lacks.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| is_executable(candidate))
}

/// Puts a folder before all others in the `PATH` of a command.
pub fn prepend_path(command: &mut Command, dir: &Path) -> Result<()> {
    let old = env::var_os("PATH").unwrap_or_default();
    let new = env::join_paths(std::iter::once(dir.to_owned()).chain(env::split_paths(&old)))
        .with_context(|| format!("{} cannot be part of PATH", dir.display()))?;
    command.env("PATH", new);
    Ok(())
}

/// The command as one would type it, for messages.
pub fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_described_as_one_would_type_them() {
        let mut command = Command::new("env");
        command.args(["A=b", "it's", "", "a b"]);
        assert_eq!(describe(&command), r"env A=b 'it'\''s' '' 'a b'");
    }

    #[test]
    fn only_executable_files_are_programs() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-here"), None);
        assert!(!is_executable(Path::new("/usr")));
        assert!(!is_executable(Path::new("/etc/passwd")));
    }

    #[test]
    fn failures_name_the_command() {
        let error = output(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sh -c") && text.contains("broken") && text.contains('3'),
            "{text}"
        );
    }
}
