//! Doing as root only what needs root.

use std::{
    ffi::OsString,
    fs,
    io::{self, IsTerminal},
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::process;

/// How something can be done as root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Privilege {
    /// This process is root.
    Root,
    /// Through this `sudo`.
    Sudo(PathBuf),
    /// Not at all, for this reason.
    None(&'static str),
}

impl Privilege {
    /// What this process may do. A `sudo` that would ask for a password counts only where somebody can answer.
    pub fn find() -> Self {
        if is_root() {
            return Self::Root;
        }
        let Some(sudo) = process::find("sudo") else {
            return Self::None("this needs root, and there is no sudo: run it as root");
        };
        let silent = Command::new(&sudo)
            .args(["-n", "true"])
            .stderr(Stdio::null())
            .status();
        if io::stdin().is_terminal() || silent.is_ok_and(|status| status.success()) {
            Self::Sudo(sudo)
        } else {
            Self::None(
                "this needs root, and sudo asks for a password: run it as root or from a terminal",
            )
        }
    }

    /// The words that go before a command: nothing for root, else sudo. The variables reach the command either way.
    ///
    /// # Errors
    /// The reason why nothing can be done as root.
    pub fn prefix<'a>(
        &self,
        variables: impl IntoIterator<Item = (&'a str, OsString)>,
    ) -> anyhow::Result<Vec<OsString>> {
        let mut words: Vec<OsString> = match self {
            Self::Root => vec!["env".into()],
            Self::Sudo(sudo) => vec![sudo.into(), "env".into()],
            Self::None(reason) => anyhow::bail!("{reason}"),
        };
        for (name, value) in variables {
            let mut word = OsString::from(name);
            word.push("=");
            word.push(value);
            words.push(word);
        }
        Ok(words)
    }

    /// A command that runs as root with these variables.
    ///
    /// # Errors
    /// The reason why nothing can be done as root.
    pub fn command<'a>(
        &self,
        variables: impl IntoIterator<Item = (&'a str, OsString)>,
        program: impl Into<OsString>,
    ) -> anyhow::Result<Command> {
        let mut words = self.prefix(variables)?.into_iter();
        let first = words.next().unwrap_or_else(|| "env".into());
        let mut command = Command::new(first);
        command.args(words).arg(program.into());
        Ok(command)
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| effective_user(&status) == Some(0))
}

/// The effective user of the `Uid:` line of `/proc/self/status`.
fn effective_user(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_counts() {
        assert_eq!(
            effective_user("Name:\tx\nUid:\t1000\t0\t1000\t1000\n"),
            Some(0)
        );
        assert_eq!(effective_user("Uid:\t0\t1000\t0\t0\n"), Some(1000));
        assert_eq!(effective_user("Name:\tx\n"), None);
    }

    #[test]
    fn variables_reach_the_command_through_sudo() {
        let variables = [("A", OsString::from("b c"))];
        let sudo = Privilege::Sudo("/usr/bin/sudo".into());
        let words = process::describe(&sudo.command(variables.clone(), "ls").unwrap());
        assert_eq!(words, "/usr/bin/sudo env 'A=b c' ls");
        let words = process::describe(&Privilege::Root.command(variables, "ls").unwrap());
        assert_eq!(words, "env 'A=b c' ls");
        let error = Privilege::None("no sudo here")
            .command([], "ls")
            .unwrap_err();
        assert_eq!(error.to_string(), "no sudo here");
    }
}
