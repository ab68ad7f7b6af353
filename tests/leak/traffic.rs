//! Datagrams that never end, and who got some.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sluice_lab::netns::Netns;

/// Where datagrams are received.
pub const PORT: u16 = 9999;
/// Between two rounds of datagrams: some thousands a second.
const PAUSE: Duration = Duration::from_micros(300);
/// How long a receiver waits until it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// Sends to all its targets, and counts what it receives.
pub struct Peer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    targets: Mutex<Vec<SocketAddr>>,
    received: Mutex<BTreeMap<IpAddr, u64>>,
    rounds: AtomicU64,
    ends: AtomicBool,
}

impl Peer {
    /// Begins at once, in a namespace.
    pub fn start(netns: &Arc<Netns>, targets: Vec<SocketAddr>) -> Peer {
        let shared = Arc::new(Shared {
            targets: Mutex::new(targets),
            ..Shared::default()
        });
        let (sends, receives) = (shared.clone(), shared.clone());
        let threads = vec![
            netns.spawn(move || sends.send()),
            netns.spawn(move || receives.receive()),
        ];
        Peer { shared, threads }
    }

    /// Sends to these, too.
    pub fn add(&self, targets: &[SocketAddr]) {
        self.shared.targets.lock().unwrap().extend(targets);
    }

    /// Sends to these no more.
    pub fn remove(&self, targets: &[SocketAddr]) {
        let mut all = self.shared.targets.lock().unwrap();
        all.retain(|target| !targets.contains(target));
    }

    /// Rounds of sending so far.
    pub fn rounds(&self) -> u64 {
        self.shared.rounds.load(Ordering::Relaxed)
    }

    /// Datagrams received from an address.
    pub fn received_from(&self, ip: IpAddr) -> u64 {
        let received = self.shared.received.lock().unwrap();
        received.get(&ip).copied().unwrap_or(0)
    }

    /// All datagrams received.
    pub fn received(&self) -> u64 {
        self.shared.received.lock().unwrap().values().sum()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic has been told.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    fn send(&self) {
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("any port");
        let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("any port");
        while !self.ends() {
            let targets = self.targets.lock().unwrap().clone();
            for target in targets {
                let socket = if target.is_ipv4() { &v4 } else { &v6 };
                // Where there is no way yet, or no more, nothing gets through.
                let _ = socket.send_to(b"leak", target);
            }
            self.rounds.fetch_add(1, Ordering::Relaxed);
            thread::sleep(PAUSE);
        }
    }

    fn receive(&self) {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)).expect("a port of its own");
        socket.set_read_timeout(Some(LOOK)).expect("not zero");
        let mut bytes = [0; 16];
        while !self.ends() {
            if let Ok((_, from)) = socket.recv_from(&mut bytes) {
                let ip = from.ip().to_canonical();
                *self.received.lock().unwrap().entry(ip).or_default() += 1;
            }
        }
    }
}
