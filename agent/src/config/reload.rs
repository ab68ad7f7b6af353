//! A settings file that changes while the agent runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{File, Settings};
use crate::args::AgentArgs;

/// A writer is given this long to finish.
const SETTLE: Duration = Duration::from_millis(300);

/// Waits for the file of `--config` to ask for other settings than those in force.
///
/// The folder is watched, so that a file that is replaced is noticed, and a mounted ConfigMap, whose
/// link `..data` is.
pub struct Reload {
    args: AgentArgs,
    socket: Option<PathBuf>,
    in_force: Settings,
    watch: Option<Watch>,
    warned: Option<String>,
}

struct Watch {
    _watcher: RecommendedWatcher,
    signals: mpsc::Receiver<()>,
}

impl Reload {
    /// Watches the file that the command line names, if it names one. `socket` is its global flag.
    pub fn new(args: &AgentArgs, socket: Option<PathBuf>, in_force: Settings) -> Self {
        let watch = args.config.as_deref().and_then(|path| {
            let watch = watch(path);
            let failed = watch.as_ref().err();
            if let Some(error) = failed {
                warn!(%error, file = %path.display(), "watching the settings; a change takes effect when the agent is started again");
            }
            watch.ok()
        });
        Self {
            args: args.clone(),
            socket,
            in_force,
            watch,
            warned: None,
        }
    }

    /// Returns when there are other settings, which an agent can be started with. A file that cannot
    /// be used is warned of.
    pub async fn changed(mut self) {
        self.wait().await;
    }

    async fn wait(&mut self) {
        loop {
            let Some(watch) = &mut self.watch else {
                return std::future::pending().await;
            };
            if watch.signals.recv().await.is_none() {
                return std::future::pending().await;
            }
            tokio::time::sleep(SETTLE).await;
            while watch.signals.try_recv().is_ok() {}
            if self.is_other() {
                return;
            }
        }
    }

    fn is_other(&mut self) -> bool {
        let loaded = match Settings::load(&self.args, self.socket.clone()) {
            Ok(loaded) => loaded,
            Err(error) => {
                let text = error.to_string();
                if self.warned.as_ref() != Some(&text) {
                    warn!("{text}; the settings in force stay");
                }
                self.warned = Some(text);
                return false;
            }
        };
        self.warned = None;
        if loaded.settings == self.in_force {
            return false;
        }
        let changed = differences(&self.in_force, &loaded.settings).join(", ");
        info!(%changed, "the settings file asks for other settings: the agent ends, to be started with them");
        true
    }
}

fn watch(path: &Path) -> notify::Result<Watch> {
    // One signal that waits stands for all that come after it.
    let (sender, signals) = mpsc::channel(1);
    let handler = move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| is_reading(event.kind)) {
            return;
        }
        let _ = sender.try_send(());
    };
    let mut watcher = notify::recommended_watcher(handler)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    watcher.watch(
        folder.unwrap_or(Path::new(".")),
        RecursiveMode::NonRecursive,
    )?;
    Ok(Watch {
        _watcher: watcher,
        signals,
    })
}

/// True for what reading the file causes itself.
fn is_reading(kind: EventKind) -> bool {
    let is_written = matches!(
        kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
    );
    matches!(kind, EventKind::Access(_)) && !is_written
}

/// Names of the settings that differ.
fn differences(one: &Settings, other: &Settings) -> Vec<String> {
    let fields = |settings: &Settings| match serde_json::to_value(File::from(settings)) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (one, other) = (fields(one), fields(other));
    let names = one.keys().chain(other.keys());
    let differ = names.filter(|name| one.get(*name) != other.get(*name));
    let mut names: Vec<String> = differ.cloned().collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder of one test's.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let name = format!("sluice-reload-{test}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const SOON: Duration = Duration::from_secs(20);

    fn reload(config: &Path) -> Reload {
        let args = AgentArgs {
            config: Some(config.to_owned()),
            node_name: Some("n".to_owned()),
            ..AgentArgs::default()
        };
        let loaded = Settings::load(&args, None).expect("settings");
        Reload::new(&args, None, loaded.settings)
    }

    /// A ConfigMap as the kubelet mounts it: a folder for each version, and a link to that in force.
    fn publish(mount: &Path, version: &str, text: &str) {
        fs::create_dir(mount.join(version)).unwrap();
        fs::write(mount.join(version).join("sluice.yaml"), text).unwrap();
        symlink(version, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    }

    #[tokio::test]
    async fn a_config_maps_new_version_is_noticed() {
        let scratch = Scratch::new("mount");
        let mount = &scratch.0;
        publish(mount, "..1", "manifests: /m\nlog: info\n");
        let config = mount.join("sluice.yaml");
        symlink("..data/sluice.yaml", &config).unwrap();
        let mut reload = reload(&config);
        publish(mount, "..2", "manifests: /m\nlog: debug\n");
        let changed = tokio::time::timeout(SOON, reload.wait()).await;
        changed.expect("it is noticed");
        let now = Settings::load(&reload.args, None).unwrap().settings;
        assert_eq!(differences(&reload.in_force, &now), ["log"]);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_or_asks_for_the_same_changes_nothing() {
        let scratch = Scratch::new("file");
        let config = scratch.0.join("sluice.yaml");
        fs::write(&config, "manifests: /m\n").unwrap();
        let mut reload = reload(&config);
        for same in [
            "manifests: /m\nservices: perhaps\n",
            "manifests: /m # the same\n",
        ] {
            fs::write(&config, same).unwrap();
            assert!(!reload.is_other(), "{same}");
        }
        fs::write(&config, "manifests: /m\nservices: off\n").unwrap();
        let changed = tokio::time::timeout(SOON, reload.wait()).await;
        changed.expect("it is noticed");
    }
}
