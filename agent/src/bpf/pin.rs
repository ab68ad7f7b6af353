//! The pin directory: `<bpffs>/v<ABI_VERSION>/{maps,links,progs}`.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use dataplane_common::abi::ABI_VERSION;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::Error;

/// Where this version's maps, links and programs are pinned.
#[derive(Clone, Debug)]
pub struct PinDir {
    maps: PathBuf,
    links: PathBuf,
    programs: PathBuf,
}

impl PinDir {
    /// Names the directories; makes nothing.
    pub fn new(bpffs: &Path) -> Self {
        let version = bpffs.join(format!("v{ABI_VERSION}"));
        Self {
            maps: version.join("maps"),
            links: version.join("links"),
            programs: version.join("progs"),
        }
    }

    /// Makes what is missing, for the owner only.
    ///
    /// # Errors
    ///
    /// The directory is not on a BPF file system, or cannot be made.
    pub fn create(&self) -> Result<(), Error> {
        let directories = [&self.maps, &self.links, &self.programs];
        check_bpffs(&self.maps)?;
        for directory in directories {
            make(directory)?;
        }
        Ok(())
    }

    /// The pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps.join(name)
    }

    /// The pin of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The pin of a link.
    pub fn link(&self, name: &str) -> PathBuf {
        self.links.join(name)
    }

    /// Names of the pinned links, sorted.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub fn links(&self) -> Result<Vec<String>, Error> {
        Ok(list(&self.links)?
            .into_iter()
            .map(|(name, _)| name)
            .collect())
    }
}

/// Entries of a directory, sorted by name; none if there is no such directory.
pub(super) fn list(directory: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let failed = |error| Error::file("listing", directory, error);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        found.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ));
    }
    found.sort();
    Ok(found)
}

/// Removes a pin, if it is there.
pub(super) fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::file("removing", path, error)),
    }
}

/// Checks that the nearest directory that exists is on a BPF file system.
pub(super) fn check_bpffs(path: &Path) -> Result<(), Error> {
    let mut existing = path;
    while !existing.exists() {
        existing = match existing.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
    }
    let answer = statfs(existing)
        .map_err(|error| Error::file("examining", existing, io::Error::from(error)))?;
    if answer.filesystem_type() != BPF_FS_MAGIC {
        // The version directory is of no interest to who reads the message.
        let shown = path.ancestors().nth(2).unwrap_or(path);
        return Err(Error::NotBpffs(shown.to_owned()));
    }
    Ok(())
}

fn make(directory: &Path) -> Result<(), Error> {
    let failed = |error| Error::file("making", directory, error);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed)?;
    // One that was there may be open to others.
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_system_is_refused_with_a_remedy() {
        let pins = PinDir::new(Path::new("/tmp/sluice-no-such-directory"));
        let error = pins.create().expect_err("/tmp is no bpffs");
        let text = error.to_string();
        assert!(
            text.contains("/tmp/sluice-no-such-directory is not"),
            "{text}"
        );
        assert!(text.contains("mount -t bpf"), "{text}");
        assert!(!Path::new("/tmp/sluice-no-such-directory").exists());
    }
}
