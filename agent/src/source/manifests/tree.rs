//! The manifest files under a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Folders deeper than this are not looked at.
const DEPTH: usize = 32;

/// What tells one version of a file from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Signature {
    /// The signature of a file, or of what a link leads to.
    pub fn of(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Signature {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// True for files that are manifests by their names.
pub fn is_manifest(path: &Path) -> bool {
    let known = |extension: &std::ffi::OsStr| {
        ["yaml", "yml", "json"]
            .iter()
            .any(|&known| extension == known)
    };
    !is_hidden(path) && path.extension().is_some_and(known)
}

/// True for names that begin with a dot.
pub fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// All manifest files under a folder; links are followed.
///
/// # Errors
///
/// The folder itself cannot be read. Folders inside it that cannot be read are left out.
pub fn files(root: &Path) -> io::Result<BTreeMap<PathBuf, Signature>> {
    let mut found = BTreeMap::new();
    let mut visited = BTreeSet::new();
    visit(root, DEPTH, &mut visited, &mut found)?;
    Ok(found)
}

fn visit(
    folder: &Path,
    depth: usize,
    visited: &mut BTreeSet<(u64, u64)>,
    found: &mut BTreeMap<PathBuf, Signature>,
) -> io::Result<()> {
    let entries = std::fs::read_dir(folder)?;
    let metadata = std::fs::metadata(folder)?;
    if !visited.insert((metadata.dev(), metadata.ino())) {
        return Ok(());
    }
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let Ok(metadata) = std::fs::metadata(&path) else {
            continue;
        };
        if is_hidden(&path) {
            continue;
        }
        if metadata.is_dir() && depth > 0 {
            // One folder that cannot be read does not hide the others.
            let _ = visit(&path, depth - 1, visited, found);
        } else if metadata.is_file() && is_manifest(&path) {
            found.insert(path, Signature::from(&metadata));
        }
    }
    Ok(())
}
