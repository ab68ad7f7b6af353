//! Steady load from threads in a namespace.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::{Answer, Connection, Failure, micros};
use super::tally::Tally;
use super::udp;
use crate::netns::Netns;

/// How a load uses connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// A new one for each request.
    PerRequest,
    /// One for each worker, as long as the server keeps it open.
    KeepAlive,
    /// Datagrams, each from a socket of its own.
    Udp,
}

/// A load.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// The addresses to ask.
    pub to: Vec<SocketAddr>,
    /// How connections are used.
    pub connections: Connections,
    /// Requests under way at a time.
    pub workers: u32,
    /// Requests per second of all workers together; none: as fast as answers come.
    pub rate: Option<u32>,
    /// When to stop by itself; none: when told.
    pub limit: Option<u64>,
    /// How long to wait for a connection and for an answer.
    pub timeout: Duration,
}

impl LoadSpec {
    /// Four workers that ask `to` with a new connection each time, without a limit.
    pub fn new(to: impl IntoIterator<Item = SocketAddr>) -> LoadSpec {
        LoadSpec {
            to: to.into_iter().collect(),
            connections: Connections::PerRequest,
            workers: 4,
            rate: None,
            limit: None,
            timeout: Duration::from_secs(3),
        }
    }
}

/// A running load. Dropping it stops it.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    spec: LoadSpec,
    begun: Instant,
    tallies: Vec<Mutex<Tally>>,
    /// Requests begun.
    count: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    /// Starts the workers in a namespace.
    pub fn start(netns: &Netns, spec: LoadSpec) -> Load {
        netns.run(|| Load::here(spec))
    }

    /// Starts the workers in the calling thread's namespace.
    pub fn here(spec: LoadSpec) -> Load {
        let tallies = (0..spec.workers).map(|_| Mutex::default()).collect();
        let (count, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared {
            spec,
            begun: Instant::now(),
            tallies,
            count,
            stop,
        });
        let workers = (0..shared.tallies.len())
            .map(|index| {
                let shared = shared.clone();
                thread::spawn(move || shared.work(index))
            })
            .collect();
        Load { shared, workers }
    }

    /// Runs a load to its limit.
    pub fn run(netns: &Netns, spec: LoadSpec) -> Tally {
        let mut load = Load::start(netns, spec);
        load.join();
        load.tally()
    }

    /// The counts so far.
    pub fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for tally in &self.shared.tallies {
            sum.merge(&tally.lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum
    }

    /// Stops it, requests under way finish first.
    pub fn stop(mut self) -> Tally {
        self.shared.stop.store(true, Ordering::Release);
        self.join();
        self.tally()
    }

    fn join(&mut self) {
        for worker in self.workers.drain(..) {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            // Its panic was printed; a second one in a drop would end the process.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn work(&self, index: usize) {
        let mut kept = None;
        while let Some(turn) = self.next_turn() {
            let to = self.target(index, turn);
            let started = Instant::now();
            let outcome = self.ask(to, &mut kept);
            let took = micros(started);
            let mut tally = self.tallies[index]
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            tally.add(started, took, outcome);
        }
    }

    /// The number of the next request, when its time has come; none when the load is over.
    fn next_turn(&self) -> Option<u64> {
        let turn = self.count.fetch_add(1, Ordering::Relaxed);
        if self.spec.limit.is_some_and(|limit| turn >= limit) {
            return None;
        }
        if let Some(rate) = self.spec.rate {
            let due = self.begun + Duration::from_secs_f64(turn as f64 / f64::from(rate.max(1)));
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        (!self.stop.load(Ordering::Acquire)).then_some(turn)
    }

    /// Requests take the addresses in turn; a worker that keeps its connection stays with one.
    fn target(&self, worker: usize, turn: u64) -> SocketAddr {
        let at = match self.spec.connections {
            Connections::KeepAlive => worker,
            Connections::PerRequest | Connections::Udp => turn as usize,
        };
        self.spec.to[at % self.spec.to.len()]
    }

    fn ask(&self, to: SocketAddr, kept: &mut Option<Connection>) -> Result<Answer, Failure> {
        let timeout = self.spec.timeout;
        match self.spec.connections {
            Connections::PerRequest => Connection::open(None, to, timeout)?.get("/", true),
            Connections::Udp => udp::ask(to, timeout),
            Connections::KeepAlive => {
                let mut connection = match kept.take() {
                    Some(connection) => connection,
                    None => Connection::open(None, to, timeout)?,
                };
                let answer = connection.get("/", false)?;
                if connection.is_open() {
                    *kept = Some(connection);
                }
                Ok(answer)
            }
        }
    }
}
