//! Names for people: made when somebody asks, and not with every change.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::engine::Engine;
use crate::admin::names::Names;

/// How often names for those who watch flows are made at most.
const EVERY: Duration = Duration::from_secs(1);

/// The names that were made last.
pub struct Naming {
    names: watch::Sender<Arc<Names>>,
    /// Something changed since.
    stale: bool,
    made: Instant,
}

impl Naming {
    /// Without names yet; the receiver is for those who watch flows.
    pub fn new() -> (Self, watch::Receiver<Arc<Names>>) {
        let (names, seen) = watch::channel(Arc::default());
        let naming = Self {
            names,
            stale: true,
            made: Instant::now(),
        };
        (naming, seen)
    }

    /// What the names stand for changed.
    pub fn changed(&mut self) {
        self.stale = true;
    }

    /// When those who watch flows get new names: only if there is somebody.
    pub fn due(&self) -> Option<Instant> {
        // The listener has one itself.
        let is_watched = self.names.receiver_count() > 1;
        (self.stale && is_watched).then(|| self.made + EVERY)
    }

    /// The names of what is in force.
    pub fn now(&mut self, engine: &Engine) -> Arc<Names> {
        if std::mem::take(&mut self.stale) {
            let services = engine.state().services();
            let names = Names::new(engine.snapshot(), engine.ids(), services);
            self.names.send_replace(Arc::new(names));
            self.made = Instant::now();
        }
        Arc::clone(&self.names.borrow())
    }
}
