//! Installing the plugin on the node: its program, and the network configuration that calls it.
//!
//! Both outlive the agent and the node's restarts: a pod that starts before the agent waits for it.
//! Only [`uninstall`] removes them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::PLUGIN;
use super::conflist::{derive, is_derived, primary};
use crate::config::CniDirs;

/// Files are looked at again after this time at the latest: a folder may have been made anew.
const AGAIN: Duration = Duration::from_secs(30);
/// What is written in several steps is read once.
const SETTLE: Duration = Duration::from_millis(20);
/// Where new files are written before they are renamed. Runtimes read neither.
const PART: &str = ".sluice-cni.part";

/// Keeps the plugin installed.
#[derive(Debug)]
pub struct Installer {
    dirs: CniDirs,
    entry: Value,
    /// The installed program, once it was compared with this one.
    program: Option<Identity>,
    said: Option<String>,
}

/// Device, inode, size and time of the last change: a file as it was.
type Identity = (u64, u64, u64, i64, i64);

impl Installer {
    /// For an agent that answers at `socket`.
    ///
    /// # Errors
    ///
    /// The current folder is unknown, and the socket's name depends on it.
    pub fn new(dirs: CniDirs, socket: &Path) -> io::Result<Self> {
        let socket = std::path::absolute(socket)?;
        Ok(Self {
            dirs,
            entry: json!({ "socket": socket }),
            program: None,
            said: None,
        })
    }

    /// Installs it, and goes on following what it depends on, on the current runtime.
    pub fn start(mut self) {
        self.bring();
        tokio::spawn(async move {
            loop {
                let (watcher, mut changes) = self.watch();
                // Without a watch there is only the time.
                let wait = timeout(AGAIN, changes.recv());
                if let Ok(Some(())) = wait.await {
                    tokio::time::sleep(SETTLE).await;
                }
                drop(watcher);
                let brought = spawn_blocking(move || {
                    self.bring();
                    self
                });
                match brought.await {
                    Ok(installer) => self = installer,
                    Err(_) => return,
                }
            }
        });
    }

    fn watch(&self) -> (Option<RecommendedWatcher>, mpsc::UnboundedReceiver<()>) {
        let (sender, changes) = mpsc::unbounded_channel();
        let waker = sender.clone();
        let handler = move |event: notify::Result<notify::Event>| {
            let only_read = event.is_ok_and(|event| match event.kind {
                EventKind::Access(kind) => kind != AccessKind::Close(AccessMode::Write),
                _ => false,
            });
            if !only_read {
                // Nobody listens while the files are brought up to date.
                let _ = sender.send(());
            }
        };
        let watcher = notify::recommended_watcher(handler).and_then(|mut watcher| {
            watcher.watch(&self.dirs.conf, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if watcher.is_ok() && self.is_stale() {
            // It changed before the watch began.
            let _ = waker.send(());
        }
        (watcher.ok(), changes)
    }

    /// True if the files are not as they are to be.
    fn is_stale(&self) -> bool {
        self.wanted()
            .is_ok_and(|(path, text)| fs::read_to_string(path).ok().as_ref() != Some(&text))
    }

    /// Brings the files to what they are to be.
    fn bring(&mut self) {
        match self.install() {
            Ok(false) => self.said = None,
            Ok(true) => {
                self.said = None;
                info!(bin = %self.dirs.bin.display(), conf = %self.dirs.conf.display(), "the CNI plugin is installed");
            }
            Err(error) => {
                let text = format!("{error:#}");
                if self.said.as_ref() != Some(&text) {
                    warn!("the CNI plugin is not installed as it is to be: {text}");
                }
                self.said = Some(text);
            }
        }
    }

    /// True if something had to be written.
    fn install(&mut self) -> Result<bool> {
        for folder in [&self.dirs.bin, &self.dirs.conf] {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        }
        // The list last: what it calls is there.
        let program = self.install_program();
        let program = program.with_context(|| format!("in {}", self.dirs.bin.display()))?;
        let list = self.install_list();
        let list = list.with_context(|| format!("in {}", self.dirs.conf.display()))?;
        Ok(program || list)
    }

    fn install_program(&mut self) -> io::Result<bool> {
        let path = self.dirs.bin.join(PLUGIN);
        if self.program.is_some() && self.program == identity(&path) {
            return Ok(false);
        }
        let own = Path::new("/proc/self/exe");
        let is_there = same(own, &path).unwrap_or(false);
        if !is_there {
            let mut from = File::open(own)?;
            replace(&path, 0o755, |to| io::copy(&mut from, to).map(drop))?;
        }
        self.program = identity(&path);
        Ok(!is_there)
    }

    /// Where the list is to be, and its content.
    fn wanted(&self) -> Result<(PathBuf, String)> {
        let names = names(&self.dirs.conf)?;
        let file = primary(names.iter().map(String::as_str)).ok_or(super::conflist::Error::None)?;
        let text = fs::read_to_string(self.dirs.conf.join(file))
            .with_context(|| format!("reading {file}"))?;
        let (name, text) = derive(file, &text, &self.entry)?;
        Ok((self.dirs.conf.join(name), text))
    }

    fn install_list(&self) -> Result<bool> {
        let (path, text) = self.wanted()?;
        if fs::read_to_string(&path).ok().as_ref() == Some(&text) {
            return Ok(false);
        }
        replace(&path, 0o644, |to| to.write_all(text.as_bytes()))?;
        for name in names(&self.dirs.conf)? {
            let other = self.dirs.conf.join(&name);
            if is_derived(&name) && other != path {
                fs::remove_file(other)?;
            }
        }
        Ok(true)
    }
}

/// Removes the list, then the program. Says what was removed.
///
/// # Errors
///
/// A file cannot be removed.
pub fn uninstall(dirs: &CniDirs) -> Result<Vec<PathBuf>> {
    let lists = names(&dirs.conf).unwrap_or_default();
    let lists = lists.iter().filter(|name| is_derived(name));
    let mut files: Vec<PathBuf> = lists.map(|name| dirs.conf.join(name)).collect();
    files.push(dirs.bin.join(PLUGIN));
    let mut removed = Vec::new();
    for file in files {
        match fs::remove_file(&file) {
            Ok(()) => removed.push(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("removing {}", file.display()));
            }
        }
    }
    Ok(removed)
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    let names = entries.into_iter().map(|entry| entry.file_name());
    Ok(names.filter_map(|name| name.into_string().ok()).collect())
}

/// Writes a file beside its place and moves it there: whoever reads sees the old or the new one, also
/// after a crash.
fn replace(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let part = path.with_file_name(PART);
    let mut file = File::create(&part)?;
    write(&mut file)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn identity(path: &Path) -> Option<Identity> {
    let of = fs::metadata(path).ok()?;
    Some((of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec()))
}

fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let mut left = one.metadata()?.len();
    if left != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = ([0; 32 * 1024], [0; 32 * 1024]);
    while left > 0 {
        let size = usize::try_from(left).map_or(a.len(), |left| left.min(a.len()));
        one.read_exact(&mut a[..size])?;
        other.read_exact(&mut b[..size])?;
        if a[..size] != b[..size] {
            return Ok(false);
        }
        left -= size as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dirs(PathBuf);

    impl Drop for Dirs {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn dirs(name: &str) -> (Dirs, CniDirs) {
        let root = std::env::temp_dir().join(format!("sluice-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let dirs = CniDirs {
            bin: root.join("bin"),
            conf: root.join("net.d"),
        };
        fs::create_dir_all(&dirs.conf).unwrap();
        (Dirs(root), dirs)
    }

    fn installer(dirs: &CniDirs) -> Installer {
        Installer::new(dirs.clone(), Path::new("/run/sluice/agent.sock")).unwrap()
    }

    const CONF: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"ptp"}]}"#;

    #[test]
    fn the_program_comes_and_the_list_follows_the_primary() {
        let (_root, dirs) = dirs("install");
        let mut installer = installer(&dirs);
        let error = installer.install().unwrap_err();
        assert!(
            format!("{error:#}").contains("no network configuration yet"),
            "{error:#}"
        );
        assert!(same(Path::new("/proc/self/exe"), &dirs.bin.join(PLUGIN)).unwrap());
        fs::write(dirs.conf.join("10-net.conflist"), CONF).unwrap();
        assert!(installer.install().unwrap());
        assert!(!installer.install().unwrap(), "nothing changed");
        let list = || fs::read_to_string(dirs.conf.join("00-sluice.conflist")).unwrap();
        assert!(list().contains("ptp") && list().contains("/run/sluice/agent.sock"));
        fs::write(
            dirs.conf.join("10-net.conflist"),
            CONF.replace("ptp", "bridge"),
        )
        .unwrap();
        assert!(installer.is_stale() && installer.install().unwrap());
        assert!(list().contains("bridge"));
        // A configuration that cannot be read changes nothing.
        fs::write(dirs.conf.join("10-net.conflist"), "{").unwrap();
        assert!(installer.install().is_err());
        assert!(list().contains("bridge"));
        // Another one comes before the list: so does the list then.
        fs::write(dirs.conf.join("00-a.conflist"), CONF).unwrap();
        assert!(installer.install().unwrap());
        let mut left = names(&dirs.conf).unwrap();
        left.sort();
        assert_eq!(
            left,
            ["0-sluice.conflist", "00-a.conflist", "10-net.conflist"]
        );
    }

    #[test]
    fn uninstalling_leaves_what_others_wrote() {
        let (_root, dirs) = dirs("uninstall");
        fs::write(dirs.conf.join("10-net.conflist"), CONF).unwrap();
        installer(&dirs).install().unwrap();
        let removed = uninstall(&dirs).unwrap();
        assert_eq!(
            removed,
            [dirs.conf.join("00-sluice.conflist"), dirs.bin.join(PLUGIN)]
        );
        assert_eq!(names(&dirs.conf).unwrap(), ["10-net.conflist"]);
        assert_eq!(uninstall(&dirs).unwrap(), [] as [PathBuf; 0]);
    }
}
