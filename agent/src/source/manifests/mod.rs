//! A folder of manifests as a source: all its `.yaml`, `.yml` and `.json` files, watched.
//!
//! Names that begin with a dot are left out: editors and ConfigMap volumes keep their own files
//! under such names. A file is read when its writer closes it or moves it into place, never while it
//! is being written; a periodic look at the folder finds what the kernel did not tell.

mod decode;
mod folder;
mod split;
mod tree;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Change, Problem};
pub use folder::Skipped;
use folder::{Folder, Parsed};
use tree::Signature;
use watch::{Signal, Watch};

/// From the first sign of a change to the reading: writers touch several files, or one several
/// times.
const SETTLE: Duration = Duration::from_millis(3);
/// Before a content that deletes objects is believed: its file may be in the middle of a write.
const CONFIRM: Duration = Duration::from_millis(10);
/// After this long without another write, a file that was not closed is read all the same.
const ABANDONED: Duration = Duration::from_secs(2);
/// Between two looks at the whole folder.
const LOOK: Duration = Duration::from_secs(2);

/// Why the folder cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not a folder that can be read.
    #[error("the folder of manifests {}: {error}; give one that exists with --manifests", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The kernel refuses to watch it.
    #[error("watching {}: {error}{}", path.display(), remedy(error))]
    Watch {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: notify::Error,
    },
}

/// The source.
#[derive(Debug)]
pub struct Manifests {
    root: PathBuf,
    folder: Folder,
    watch: Watch,
    seen: BTreeMap<PathBuf, Signature>,
    /// Files that are being written, with the time of the last write.
    writing: BTreeMap<PathBuf, Instant>,
    /// Files to be read.
    dirty: BTreeSet<PathBuf>,
    /// Files whose content would delete objects, to be read again.
    doubted: BTreeSet<PathBuf>,
    /// Files that were there at the start and have not been read yet.
    awaited: BTreeSet<PathBuf>,
    due: Option<Instant>,
    next_look: Instant,
    root_problem: Option<Problem>,
}

/// What a folder holds.
#[derive(Debug)]
pub struct Contents {
    /// Its objects.
    pub changes: Vec<Change>,
    /// What is wrong with its files.
    pub problems: Vec<Problem>,
    /// Documents that are left out.
    pub skipped: Vec<Skipped>,
}

/// Reads a folder once, without watching it.
///
/// # Errors
///
/// [`Error::Folder`] if it cannot be read.
pub fn read_once(root: &Path) -> Result<Contents, Error> {
    let mut folder = Folder::default();
    for path in files(root)?.into_keys() {
        folder.take(&read(&path).unwrap_or_else(|error| Parsed::unreadable(&path, &error)));
    }
    Ok(Contents {
        changes: folder.drain(),
        problems: folder.problems(),
        skipped: folder.skipped(),
    })
}

/// What one file with this text would hold.
pub fn read_text(path: &Path, text: &str) -> Contents {
    let mut folder = Folder::default();
    folder.take(&Parsed::new(path, text.as_bytes()));
    Contents {
        changes: folder.drain(),
        problems: folder.problems(),
        skipped: folder.skipped(),
    }
}

impl Manifests {
    /// Starts watching a folder; what it holds now is the first answer of [`Self::next`].
    ///
    /// # Errors
    ///
    /// The folder cannot be read or watched.
    pub fn open(root: &Path) -> Result<Self, Error> {
        files(root)?;
        // The watch comes before the list: a change in between is seen twice instead of never.
        let watch = Watch::new(root)?;
        let seen = files(root)?;
        let dirty: BTreeSet<PathBuf> = seen.keys().cloned().collect();
        Ok(Self {
            root: root.to_owned(),
            folder: Folder::default(),
            watch,
            seen,
            writing: BTreeMap::new(),
            awaited: dirty.clone(),
            dirty,
            doubted: BTreeSet::new(),
            due: Some(Instant::now()),
            next_look: Instant::now() + LOOK,
            root_problem: None,
        })
    }

    /// Waits for changes: first, for all that the folder holds, so that nothing is taken as gone
    /// because its file is just being written. May return none. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Vec<Change> {
        loop {
            let wake = self.due.unwrap_or(self.next_look).min(self.next_look);
            tokio::select! {
                biased;
                signal = self.watch.next() => {
                    self.note(signal);
                    self.due.get_or_insert_with(|| Instant::now() + SETTLE);
                }
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= self.next_look {
                        self.look();
                        self.next_look = Instant::now() + LOOK;
                    }
                    self.due = None;
                    self.read_dirty();
                    if self.awaited.is_empty() {
                        return self.folder.drain();
                    }
                }
            }
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All that is wrong with the files.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.folder.problems();
        problems.extend(self.root_problem.clone());
        problems
    }

    /// The documents that are left out.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.folder.skipped()
    }

    fn note(&mut self, signal: Signal) {
        match signal {
            Signal::Writing(path) => {
                self.writing.insert(path, Instant::now());
            }
            Signal::Written(path) => {
                self.writing.remove(&path);
                self.dirty.insert(path);
            }
            Signal::Gone(path) => {
                self.writing.remove(&path);
                let known = self.folder.files().filter(|file| file.starts_with(&path));
                self.dirty
                    .extend(known.map(Path::to_owned).collect::<Vec<_>>());
                self.dirty.insert(path);
            }
            Signal::Tree => self.look(),
        }
    }

    /// Compares the folder with what was seen of it.
    fn look(&mut self) {
        let now = match files(&self.root) {
            Ok(now) => now,
            Err(error) => return self.lost(&error),
        };
        self.root_problem = None;
        for (path, signature) in &now {
            if self.seen.get(path) != Some(signature) {
                self.dirty.insert(path.clone());
            }
        }
        let gone = self.folder.files().filter(|path| !now.contains_key(*path));
        self.dirty
            .extend(gone.map(Path::to_owned).collect::<Vec<_>>());
        if !self.dirty.is_empty() {
            self.due.get_or_insert_with(|| Instant::now() + SETTLE);
        }
        if let Err(error) = self.watch.follow(&self.root) {
            warn!("{error}");
        }
    }

    /// The folder itself cannot be read: what it held stays in force.
    fn lost(&mut self, error: &Error) {
        let problem = Problem {
            origin: super::Origin {
                file: self.root.display().to_string().into(),
                line: 0,
            },
            object: None,
            field: String::new(),
            message: error.to_string(),
            effect: "what was read before stays in force".to_owned(),
        };
        if self.root_problem.as_ref() != Some(&problem) {
            warn!("{problem}");
            self.root_problem = Some(problem);
        }
    }

    fn read_dirty(&mut self) {
        let confirmed = std::mem::take(&mut self.doubted);
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.extend(confirmed.iter().cloned());
        for path in dirty {
            let writing = self.writing.get(&path);
            if writing.is_some_and(|last| last.elapsed() < ABANDONED) {
                debug!(path = %path.display(), "still being written");
                self.seen.remove(&path);
                continue;
            }
            self.writing.remove(&path);
            self.awaited.remove(&path);
            let signature = Signature::of(&path);
            let parsed = match read(&path) {
                Ok(parsed) => parsed,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.seen.remove(&path);
                    self.folder.forget(&path);
                    continue;
                }
                Err(error) => Parsed::unreadable(&path, &error),
            };
            if !confirmed.contains(&path) && self.folder.would_delete(&parsed) {
                self.doubted.insert(path);
                self.due.get_or_insert_with(|| Instant::now() + CONFIRM);
                continue;
            }
            self.folder.take(&parsed);
            if let Ok(signature) = signature {
                self.seen.insert(path, signature);
            }
        }
    }
}

fn remedy(error: &notify::Error) -> &'static str {
    match error.kind {
        notify::ErrorKind::MaxFilesWatch => {
            "; allow more by `sysctl -w fs.inotify.max_user_watches=1048576`"
        }
        _ => "",
    }
}

fn read(path: &Path) -> io::Result<Parsed> {
    Ok(Parsed::new(path, &std::fs::read(path)?))
}

fn files(root: &Path) -> Result<BTreeMap<PathBuf, Signature>, Error> {
    tree::files(root).map_err(|error| Error::Folder {
        path: root.to_owned(),
        error,
    })
}

/// Documents for tests.
#[cfg(test)]
pub mod fixture {
    use super::{Change, Path, read_text};

    /// The changes that a file with this text makes.
    pub fn changes(path: &Path, text: &str) -> Vec<Change> {
        read_text(path, text).changes
    }
}

#[cfg(test)]
mod tests;
