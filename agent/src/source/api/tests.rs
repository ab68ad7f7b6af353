//! The source before a scripted server that does what a real one does seldom or never.

mod conditions;
mod events;
mod faults;
mod lists;
mod objects;
mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use dataplane_model::snapshot::Kind as ModelKind;

use super::*;
use crate::source::{Change, ObjectKey};
use server::{Answer, Server};

/// Longer than any test needs, were the machine ever so busy.
const DEADLINE: Duration = Duration::from_secs(30);

/// Everything happens sooner than in earnest.
fn timing() -> Timing {
    Timing {
        headers: Duration::from_millis(400),
        part: Duration::from_millis(400),
        watch: Duration::from_secs(1),
        steady: Duration::from_millis(300),
        pause: (Duration::from_millis(5), Duration::from_millis(80)),
        silence: Duration::from_millis(700),
        absent: Duration::from_millis(100),
    }
}

/// The source, and what it has said.
struct World {
    server: Server,
    api: Api,
    /// By `Kind namespace/name`: the version in force, read from the object.
    objects: BTreeMap<String, String>,
    in_sync: Vec<ModelKind>,
    /// All changes in their order, as `+key@version` and `-key`.
    changes: Vec<String>,
}

impl World {
    async fn new(script: impl FnMut(&str) -> Option<Answer> + Send + 'static) -> Self {
        Self::remembering(script, None).await
    }

    /// As [`Self::new`], with a file that keeps where the API servers are.
    async fn remembering(
        script: impl FnMut(&str) -> Option<Answer> + Send + 'static,
        memory: Option<PathBuf>,
    ) -> Self {
        let server = Server::start(script).await;
        let api = Api::open(server.access(), timing(), memory)
            .await
            .expect("a source");
        Self {
            server,
            api,
            objects: BTreeMap::new(),
            in_sync: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// Takes batches until this holds.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !holds(self) {
            let next = tokio::time::timeout(Duration::from_millis(50), self.api.next());
            if let Ok(batch) = next.await {
                self.take(batch);
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "not in time: {what}; changes {:?}, requests {:#?}",
                self.changes,
                self.server.requests("")
            );
        }
    }

    fn take(&mut self, batch: Batch) {
        for change in batch.changes {
            match change {
                Change::Apply { object, .. } => {
                    let key = object.key().to_string();
                    let version = object
                        .metadata()
                        .resource_version
                        .clone()
                        .unwrap_or_default();
                    self.changes.push(format!("+{key}@{version}"));
                    self.objects.insert(key, version);
                }
                Change::Delete(key) => {
                    self.changes.push(format!("-{key}"));
                    self.objects.remove(&key.to_string());
                }
            }
        }
        self.in_sync.extend(batch.in_sync);
    }

    fn is_in_sync(&self) -> bool {
        let all = [
            ModelKind::Node,
            ModelKind::Namespace,
            ModelKind::Pod,
            ModelKind::Service,
            ModelKind::Slice,
            ModelKind::Policy,
            ModelKind::ClusterPolicy,
            ModelKind::Route,
        ];
        all.iter().all(|kind| self.in_sync.contains(kind))
    }

    /// The objects in force, as `name@version`, of namespaces.
    fn namespaces(&self) -> Vec<String> {
        let objects = self.objects.iter();
        let namespaces = objects.filter_map(|(key, version)| {
            Some(format!("{}@{version}", key.strip_prefix("Namespace ")?))
        });
        namespaces.collect()
    }

    fn state(&self, kind: Kind) -> State {
        self.api
            .states()
            .snapshot()
            .remove(&kind)
            .unwrap_or_default()
    }
}

/// A line of a watch about a namespace.
fn event(ty: &str, name: &str, version: u32) -> String {
    format!(
        r#"{{"type":"{ty}","object":{{"kind":"Namespace","apiVersion":"v1","metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}}}"#
    ) + "\n"
}

fn bookmark(version: u32, initial_end: bool) -> String {
    let annotations = if initial_end {
        r#","annotations":{"k8s.io/initial-events-end":"true"}"#
    } else {
        ""
    };
    format!(
        r#"{{"type":"BOOKMARK","object":{{"kind":"Namespace","apiVersion":"v1","metadata":{{"resourceVersion":"{version}","creationTimestamp":null{annotations}}}}}}}"#
    ) + "\n"
}

fn error_event(code: u16) -> String {
    format!(
        r#"{{"type":"ERROR","object":{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"too old resource version","reason":"Expired","code":{code}}}}}"#
    ) + "\n"
}

/// A page of a list of namespaces.
fn list(version: u32, next: &str, names: &[&str]) -> String {
    let items: Vec<String> = names
        .iter()
        .map(|name| format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}"#))
        .collect();
    format!(
        r#"{{"kind":"NamespaceList","apiVersion":"v1","metadata":{{"resourceVersion":"{version}","continue":"{next}"}},"items":[{}]}}"#,
        items.join(",")
    )
}

fn is_namespaces(target: &str) -> bool {
    target.starts_with("/api/v1/namespaces?")
}

fn is_stream(target: &str) -> bool {
    target.contains("sendInitialEvents=true")
}

/// The version at which a watch is resumed.
fn resumed_at(target: &str) -> Option<&str> {
    let (_, rest) = target.split_once("&resourceVersion=")?;
    rest.split('&').next()
}
