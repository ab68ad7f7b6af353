//! A flow of datagrams that never pauses, and when they arrive: what tells to a tenth of a millisecond
//! when a policy lets it pass, and when no more.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::topology::Pod;
use crate::wait;

/// The server's port.
pub const PORT: u16 = 9_000;
/// Between two datagrams.
const PAUSE: Duration = Duration::from_micros(50);
/// Without a datagram for so long, none comes any more.
const SILENCE: Duration = Duration::from_millis(60);

/// The flow. It ends with this.
pub struct Flow {
    seen: Arc<Mutex<Seen>>,
    patience: Duration,
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// The first that came since it was forgotten.
    first: Option<Instant>,
    /// The last.
    last: Option<Instant>,
}

impl Flow {
    /// Starts it from a pod to another. A change may take as long as `patience`.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(client: &Pod, server: &Pod, patience: Duration) -> Result<Flow> {
        let to = (IpAddr::from(server.addrs().v4), PORT);
        let receiver = server
            .netns()
            .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))
            .context("the server cannot listen")?;
        let sender = client
            .netns()
            .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        sender.connect(to)?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let note = Arc::clone(&seen);
        // Ends with the process.
        thread::spawn(move || {
            while receiver.recv(&mut [0]).is_ok() {
                let now = Instant::now();
                let mut seen = note.lock().unwrap_or_else(PoisonError::into_inner);
                seen.first.get_or_insert(now);
                seen.last = Some(now);
            }
        });
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // What is refused is lost as what is dropped.
                let _ = sender.send(b"x");
                thread::sleep(PAUSE);
            }
        });
        Ok(Flow {
            seen,
            patience,
            stop,
            sender: Some(sender),
        })
    }

    /// Forgets the datagrams that came.
    pub fn forget(&self) {
        *self.seen() = Seen::default();
    }

    /// When the first datagram came since; waits for it.
    ///
    /// # Errors
    /// None comes.
    pub fn opened(&self) -> Result<Instant> {
        wait::until(self.patience, "a datagram", || {
            self.seen().first.context("none came")
        })
    }

    /// When the last datagram came; waits until none has come for a while.
    ///
    /// # Errors
    /// They go on.
    pub fn closed(&self) -> Result<Instant> {
        wait::until(self.patience, "the flow to end", || {
            let last = self.seen().last.context("none has come at all")?;
            ensure!(last.elapsed() > SILENCE, "one has just come");
            anyhow::Ok(last)
        })
    }

    /// Makes sure that datagrams come.
    ///
    /// # Errors
    /// They do not.
    pub fn ensure_open(&self) -> Result<()> {
        self.forget();
        match self.opened() {
            Ok(_) => Ok(()),
            Err(error) => bail!("the flow does not pass at the start: {error}"),
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            // It has nothing to say.
            let _ = sender.join();
        }
    }
}
