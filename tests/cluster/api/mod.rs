//! The API source before a real API server, with a proxy between that makes what networks and
//! balancers do to connections.

mod faults;
mod follow;
mod proxy;
mod server;

use std::collections::BTreeSet;
use std::time::Duration;

use sluice::source::api::{Access, Api, Timing};
use sluice::source::{Change, Kind};
use tokio::time::Instant;

use proxy::Proxy;
use server::ApiServer;

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The source, and what it has said.
struct World {
    api: Api,
    objects: BTreeSet<String>,
    deleted: Vec<String>,
    in_sync: usize,
    /// When the last batch came, and when its bytes had arrived.
    last: Option<Instant>,
}

impl World {
    async fn new(access: Access) -> Self {
        let api = Api::open(access, Timing::default(), None)
            .await
            .expect("a source");
        Self {
            api,
            objects: BTreeSet::new(),
            deleted: Vec::new(),
            in_sync: 0,
            last: None,
        }
    }

    async fn synced(access: Access) -> Self {
        let mut world = Self::new(access).await;
        world.until("in sync", |world| world.in_sync == 7).await;
        world
    }

    /// Takes batches until this holds; returns how long it took.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Duration {
        let started = Instant::now();
        while !holds(self) {
            if let Ok(batch) =
                tokio::time::timeout(Duration::from_millis(100), self.api.next()).await
            {
                self.in_sync += batch.in_sync.len();
                self.last = Some(batch.received);
                for change in batch.changes {
                    match change {
                        Change::Apply { object, .. } => {
                            self.objects.insert(object.key().to_string());
                        }
                        Change::Delete(key) => {
                            self.objects.remove(&key.to_string());
                            self.deleted.push(key.to_string());
                        }
                    }
                }
            }
            assert!(
                started.elapsed() < DEADLINE,
                "not in time: {what}; {:#?}",
                self.api.states().snapshot()
            );
        }
        started.elapsed()
    }

    async fn has(&mut self, object: &str) -> Duration {
        self.until(object, |world| world.objects.contains(object))
            .await
    }

    fn failures(&self, kind: Kind) -> u64 {
        self.api
            .states()
            .snapshot()
            .get(&kind)
            .map_or(0, |state| state.failures)
    }
}
