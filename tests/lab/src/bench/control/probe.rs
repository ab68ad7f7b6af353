//! Who connects to a Service all the time, and who notes the first connection.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::objects::{SERVICE_PORT, TARGET_PORT};
use crate::topology::Pod;

/// Between two connections. With the connection's own time, one starts about three times in a
/// millisecond.
pub const PAUSE: Duration = Duration::from_micros(200);
/// A connection may take so long.
const PATIENCE: Duration = Duration::from_millis(500);

/// A pod that takes connections and notes when the first one came.
#[derive(Debug)]
pub struct Backend {
    pod: Pod,
    first: Arc<Mutex<Option<Instant>>>,
}

impl Backend {
    /// Lets a pod take connections, as long as this process lives.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(pod: Pod) -> Result<Backend> {
        let listener = pod
            .netns()
            .run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET_PORT)))
            .with_context(|| format!("{} cannot listen", pod.name()))?;
        let first = Arc::new(Mutex::new(None));
        let note = Arc::clone(&first);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let at = Instant::now();
                let mut first = note.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(at);
                drop(stream);
            }
        });
        Ok(Backend { pod, first })
    }

    /// Its pod.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Forgets what came.
    pub fn forget(&self) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// When the first connection came since then.
    pub fn first(&self) -> Option<Instant> {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects to a Service again and again, until it is dropped.
#[derive(Debug)]
pub struct Prober {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Starts in a pod.
    pub fn start(client: &Pod, service: Ipv4Addr) -> Prober {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = client.netns().spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // Whoever is not there yet is tried again.
                let _ = connect(service);
                thread::sleep(PAUSE);
            }
        });
        Prober {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// Whether a Service answers a pod.
///
/// # Errors
/// It does not.
pub fn answers(client: &Pod, service: Ipv4Addr) -> io::Result<()> {
    client.netns().run(|| connect(service))
}

/// One connection, which the server ends.
fn connect(service: Ipv4Addr) -> io::Result<()> {
    let to = SocketAddrV4::new(service, SERVICE_PORT).into();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read(&mut [0]).map(drop)
}
