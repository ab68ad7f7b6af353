//! What the kernel tells of a folder (inotify).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::Error;
use super::tree;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Signal {
    /// A file is being written.
    Writing(PathBuf),
    /// A file is complete: its writer closed it, or it was moved into place.
    Written(PathBuf),
    /// A file or folder is gone.
    Gone(PathBuf),
    /// Anything may have changed.
    Tree,
}

/// A watch over a folder and all below it.
#[derive(Debug)]
pub struct Watch {
    watcher: RecommendedWatcher,
    signals: mpsc::UnboundedReceiver<Signal>,
    /// Device and inode of the folder that is watched.
    watched: Option<(u64, u64)>,
}

impl Watch {
    /// Watches a folder.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn new(root: &Path) -> Result<Self, Error> {
        let (sender, signals) = mpsc::unbounded_channel();
        let folder = root.to_owned();
        let handler = move |event: notify::Result<Event>| {
            let signals = event.map_or_else(|_| vec![Signal::Tree], |event| signals_of(&event));
            let seen = signals
                .into_iter()
                .filter(|signal| !is_out_of_sight(signal, &folder));
            for signal in seen {
                // The receiver is gone only while the agent stops.
                let _ = sender.send(signal);
            }
        };
        let refused = |error| Error::Watch {
            path: root.to_owned(),
            error,
        };
        let mut watcher = notify::recommended_watcher(handler).map_err(refused)?;
        watcher
            .watch(root, RecursiveMode::Recursive)
            .map_err(refused)?;
        Ok(Self {
            watcher,
            signals,
            watched: identity(root),
        })
    }

    /// The next signal; waits for ever if there will be none.
    pub async fn next(&mut self) -> Signal {
        match self.signals.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }

    /// Watches the folder that the path leads to now, if it is another one than before.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn follow(&mut self, root: &Path) -> Result<(), Error> {
        let now = identity(root);
        if now == self.watched || now.is_none() {
            return Ok(());
        }
        // The old watch ended with its folder.
        let _ = self.watcher.unwatch(root);
        self.watcher
            .watch(root, RecursiveMode::Recursive)
            .map_err(|error| Error::Watch {
                path: root.to_owned(),
                error,
            })?;
        self.watched = now;
        Ok(())
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn signals_of(event: &Event) -> Vec<Signal> {
    if event.need_rescan() {
        return vec![Signal::Tree];
    }
    let signal: fn(&Path) -> Option<Signal> = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => written,
        EventKind::Modify(ModifyKind::Data(_)) => writing,
        EventKind::Create(CreateKind::Folder) => {
            |path| (!tree::is_hidden(path)).then_some(Signal::Tree)
        }
        EventKind::Create(_) => created,
        EventKind::Modify(ModifyKind::Name(RenameMode::To)) => moved_here,
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => {
            |path| Some(Signal::Gone(path.to_owned()))
        }
        // Both halves of a move were told already.
        _ => return Vec::new(),
    };
    event.paths.iter().filter_map(|path| signal(path)).collect()
}

/// True for a file in a hidden folder, where ConfigMap volumes prepare their next content.
fn is_out_of_sight(signal: &Signal, root: &Path) -> bool {
    let (Signal::Writing(path) | Signal::Written(path)) = signal else {
        return false;
    };
    let folders = path.strip_prefix(root).ok().and_then(Path::parent);
    folders.is_some_and(|folders| {
        folders
            .components()
            .any(|folder| tree::is_hidden(folder.as_ref()))
    })
}

fn written(path: &Path) -> Option<Signal> {
    tree::is_manifest(path).then(|| Signal::Written(path.to_owned()))
}

fn writing(path: &Path) -> Option<Signal> {
    tree::is_manifest(path).then(|| Signal::Writing(path.to_owned()))
}

/// A file that is created is complete when it is closed; one that was linked is complete now.
fn created(path: &Path) -> Option<Signal> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    if metadata.is_symlink() {
        return moved_here(path);
    }
    if metadata.nlink() > 1 {
        written(path)
    } else {
        writing(path)
    }
}

/// A hidden link that is moved into place is how ConfigMap volumes change all their files at once.
fn moved_here(path: &Path) -> Option<Signal> {
    let is_file = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    if is_file {
        written(path)
    } else {
        Some(Signal::Tree)
    }
}
