//! Verdicts as they are made. The kernel programs send them only while someone listens.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dataplane_common::abi::{FlowEvent, from_bytes, name};
use tokio::{sync::broadcast, task::JoinHandle};

use crate::bpf::{Error, Maps, Ring, Table};

/// Events that a slow listener may be behind before it loses some.
const BACKLOG: usize = 8_192;

/// Reads the ring of events and hands them to listeners. Without one it is not even mapped: most agents
/// never have any.
pub struct Hub(Arc<Shared>);

struct Shared {
    maps: Maps,
    /// Where the programs look whether anyone listens.
    count: Table<u32, u32>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    listeners: u32,
    /// There while there are listeners.
    reading: Option<Reading>,
}

struct Reading {
    sender: broadcast::Sender<FlowEvent>,
    reader: JoinHandle<()>,
}

impl Hub {
    /// Listeners that a former agent left counted are forgotten. There may be one hub for a dataplane.
    ///
    /// # Errors
    ///
    /// A map is missing, or the programs cannot be told.
    pub fn new(maps: &Maps) -> Result<Self, Error> {
        let count = maps.table(name::LISTENERS)?;
        count.put(&0, &0)?;
        Ok(Self(Arc::new(Shared {
            maps: maps.clone(),
            count,
            open: Mutex::default(),
        })))
    }

    /// Begins to listen, on the current runtime: the programs send events while any subscription lives.
    ///
    /// # Errors
    ///
    /// The ring cannot be read, or the programs cannot be told.
    pub fn subscribe(&self) -> Result<Subscription, Error> {
        let mut open = self.0.open();
        let reading = match open.reading.take() {
            Some(reading) => reading,
            None => Reading::begin(&self.0.maps)?,
        };
        let receiver = reading.sender.subscribe();
        open.reading = Some(reading);
        self.0.count.put(&0, &(open.listeners + 1))?;
        open.listeners += 1;
        Ok(Subscription {
            receiver,
            shared: Arc::clone(&self.0),
        })
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.0.open().reading = None;
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self) -> Result<(), Error> {
        let mut open = self.open();
        open.listeners -= 1;
        if open.listeners == 0 {
            open.reading = None;
        }
        self.count.put(&0, &open.listeners)
    }
}

impl Reading {
    fn begin(maps: &Maps) -> Result<Self, Error> {
        let mut ring = Ring::open(maps, name::EVENTS)?;
        // What was sent to former listeners, and came when they were gone.
        ring.skip();
        let (sender, _) = broadcast::channel(BACKLOG);
        let reader = tokio::spawn(read(ring, sender.clone()));
        Ok(Self { sender, reader })
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A listener.
pub struct Subscription {
    receiver: broadcast::Receiver<FlowEvent>,
    shared: Arc<Shared>,
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
        if let Err(error) = self.shared.leave() {
            tracing::warn!(%error, "flow events go on without a listener");
        }
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
