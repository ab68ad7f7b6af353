//! Verdicts as they are made. The kernel programs send them only while someone listens.

use std::sync::{Arc, Mutex, PoisonError};

use dataplane_common::abi::{FlowEvent, from_bytes, name};
use tokio::{sync::broadcast, task::JoinHandle};

use crate::bpf::{Error, Maps, Ring, Table};

/// Events that a slow listener may be behind before it loses some.
const BACKLOG: usize = 8_192;

/// Reads the ring of events and hands them to listeners.
pub struct Hub {
    sender: broadcast::Sender<FlowEvent>,
    listeners: Arc<Listeners>,
    reader: JoinHandle<()>,
}

impl Hub {
    /// Starts to read, on the current runtime. Listeners that a former agent left counted are
    /// forgotten. There may be one hub for a dataplane.
    ///
    /// # Errors
    ///
    /// A map is missing, or the ring cannot be read.
    pub fn new(maps: &Maps) -> Result<Self, Error> {
        let listeners = Listeners {
            table: maps.table(name::LISTENERS)?,
            count: Mutex::new(0),
        };
        listeners.add(0)?;
        let ring = Ring::open(maps, name::EVENTS)?;
        let (sender, _) = broadcast::channel(BACKLOG);
        let reader = tokio::spawn(read(ring, sender.clone()));
        Ok(Self {
            sender,
            listeners: Arc::new(listeners),
            reader,
        })
    }

    /// Begins to listen: the programs send events while any subscription lives.
    ///
    /// # Errors
    ///
    /// The programs cannot be told.
    pub fn subscribe(&self) -> Result<Subscription, Error> {
        let receiver = self.sender.subscribe();
        self.listeners.add(1)?;
        Ok(Subscription {
            receiver,
            listeners: Arc::clone(&self.listeners),
        })
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A listener.
pub struct Subscription {
    receiver: broadcast::Receiver<FlowEvent>,
    listeners: Arc<Listeners>,
}

/// What a listener hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A verdict.
    Event(FlowEvent),
    /// The listener was too slow for this many events.
    Lost(u64),
}

impl Subscription {
    /// The next event; `None` once the hub is gone.
    pub async fn next(&mut self) -> Option<Heard> {
        match self.receiver.recv().await {
            Ok(event) => Some(Heard::Event(event)),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Heard::Lost(count)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Err(error) = self.listeners.add(-1) {
            tracing::warn!(%error, "flow events go on without a listener");
        }
    }
}

struct Listeners {
    table: Table<u32, u32>,
    count: Mutex<u32>,
}

impl Listeners {
    fn add(&self, delta: i32) -> Result<(), Error> {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let new = count.saturating_add_signed(delta);
        self.table.put(&0, &new)?;
        *count = new;
        Ok(())
    }
}

async fn read(mut ring: Ring, sender: broadcast::Sender<FlowEvent>) {
    let mut tell = |record: &[u8]| {
        if let Some(event) = from_bytes(record) {
            // Without listeners the event is of no interest.
            let _ = sender.send(event);
        }
    };
    // It fails when the runtime ends.
    while ring.read(&mut tell).await.is_ok() {}
}
