//! One run of the lab: its name, its folder, and the promise that nothing of it stays behind.
//!
//! Everything a run makes carries its id: namespaces are called `sl-<id>-<name>`, files and the
//! private bpffs live under `/run/sluice-lab/<id>`. The folder holds a lock that the kernel
//! releases when the process ends, however it ends; a folder whose lock is free is a leftover, and
//! the next run removes it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::netns;

/// The folder that holds the folders of all runs.
const ROOT: &str = "/run/sluice-lab";

/// The runs of this process, for the signal thread.
static LIVE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// A run of the lab. Dropping it removes all it made, unless [`Run::keep`] was called.
#[derive(Debug)]
pub struct Run {
    id: String,
    dir: PathBuf,
    /// Held, not read: its lock tells other runs that this one is alive.
    _lock: File,
    /// Its processes are to outlive this one.
    lasting: AtomicBool,
}

impl Run {
    /// Starts a run: removes what dead runs left, makes the folder and mounts a bpffs in it.
    ///
    /// # Errors
    /// Not root, or the folder or the mount cannot be made.
    pub fn start() -> Result<Arc<Run>> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the lab makes network namespaces: run it as root");
        }
        on_signals_remove_runs();
        fs::create_dir_all(ROOT).with_context(|| format!("cannot create {ROOT}"))?;
        // Two starting runs must not take each other's half-made folders for leftovers.
        let gate = File::create(Path::new(ROOT).join(".gate"))?;
        gate.lock().context("cannot lock the lab's folder")?;
        sweep()?;
        let id = fresh_id();
        let dir = Path::new(ROOT).join(&id);
        fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let lock = File::create(dir.join("lock"))?;
        lock.lock()?;
        let bpf = dir.join("bpf");
        fs::create_dir(&bpf)?;
        mount(
            Some("bpf"),
            &bpf,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("cannot mount a bpffs on {}", bpf.display()))?;
        live().insert(id.clone());
        Ok(Arc::new(Run {
            id,
            dir,
            _lock: lock,
            lasting: AtomicBool::new(false),
        }))
    }

    /// The run's id, part of every name it makes.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The run's own folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The run's own bpffs, a mount that goes with the run.
    pub fn bpffs(&self) -> PathBuf {
        self.dir.join("bpf")
    }

    /// The full name of one of the run's namespaces.
    pub fn netns_name(&self, name: &str) -> String {
        format!("{}{name}", netns_prefix(&self.id))
    }

    /// Lets the servers that are started from now on outlive this process: the run will be kept.
    pub fn make_lasting(&self) {
        self.lasting.store(true, Ordering::Relaxed);
    }

    /// Whether servers are to outlive this process.
    pub(crate) fn is_lasting(&self) -> bool {
        self.lasting.load(Ordering::Relaxed)
    }

    /// Lets everything stay after the process ends; `sluice-lab remove` takes it away.
    ///
    /// # Errors
    /// The mark cannot be written.
    pub fn keep(&self) -> Result<()> {
        fs::write(self.dir.join("keep"), "")?;
        live().remove(&self.id);
        Ok(())
    }
}

impl Run {
    /// Whether it is to stay.
    pub(crate) fn is_kept(&self) -> bool {
        !live().contains(&self.id)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if live().remove(&self.id)
            && let Err(error) = remove(&self.id)
        {
            eprintln!("sluice-lab: run {}: {error:#}", self.id);
        }
    }
}

/// Removes one run by its id: its processes, namespaces, pins and files.
///
/// # Errors
/// Something of it cannot be removed.
pub fn remove(id: &str) -> Result<()> {
    let dir = Path::new(ROOT).join(id);
    if id.is_empty() || id.contains('/') || !dir.is_dir() {
        bail!("there is no run {id:?} under {ROOT}");
    }
    netns::remove_with_prefix(&netns_prefix(id))?;
    let bpf = dir.join("bpf");
    // Not mounted when the run died between two steps of its start.
    let _ = umount2(&bpf, MntFlags::MNT_DETACH);
    fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))
}

/// The ids of all runs with a folder, and whether each was kept on purpose.
///
/// # Errors
/// The folder cannot be read.
pub fn list() -> Result<Vec<(String, bool)>> {
    let mut runs = Vec::new();
    let entries = match fs::read_dir(ROOT) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(runs),
        Err(error) => return Err(error).with_context(|| format!("cannot read {ROOT}")),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let kept = entry.path().join("keep").exists();
            runs.push((entry.file_name().to_string_lossy().into_owned(), kept));
        }
    }
    runs.sort();
    Ok(runs)
}

/// Removes the runs whose process is gone and that were not kept.
fn sweep() -> Result<()> {
    for (id, kept) in list()? {
        let free = match File::open(Path::new(ROOT).join(&id).join("lock")) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => true,
        };
        if free && !kept {
            let removed = remove(&id);
            // A run that was ending has done so by itself meanwhile.
            if Path::new(ROOT).join(&id).exists() {
                removed.with_context(|| format!("cannot remove what run {id} left"))?;
            }
        }
    }
    Ok(())
}

/// The process id, with a number for each further run of the process.
fn fresh_id() -> String {
    let pid = process::id();
    let taken = |id: &String| Path::new(ROOT).join(id).exists();
    let more = (1..).map(|n| format!("{pid}.{n}"));
    let mut ids = std::iter::once(pid.to_string()).chain(more);
    ids.find(|id| !taken(id)).unwrap_or_else(|| pid.to_string())
}

fn netns_prefix(id: &str) -> String {
    format!("sl-{id}-")
}

fn live() -> std::sync::MutexGuard<'static, BTreeSet<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the process's runs when it is asked to end, then ends it.
fn on_signals_remove_runs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGHUP, SIGINT, SIGTERM]) else {
            return;
        };
        thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                for id in std::mem::take(&mut *live()) {
                    if let Err(error) = remove(&id) {
                        eprintln!("sluice-lab: run {id}: {error:#}");
                    }
                }
                process::exit(128 + signal);
            }
        });
    });
}
