//! The host's sockets at the end of a backend.
//!
//! The socket hooks translate when a socket connects; after that its packets go to the backend without
//! a look at the Service. A socket for datagrams never learns that the backend is gone, so it is ended:
//! its owner's next call fails, and a new socket is served by another backend. Sockets that did not
//! come through a frontend are never touched.

mod diag;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use dataplane_common::abi::{Abi, Addr4, Addr6, Port, SockRevKey, SockRevVal, name};
use dataplane_common::net::proto;
use dataplane_model::gone::Gone;
use dataplane_model::tables::Family;
use tracing::{info, warn};

use crate::bpf::{Error, Maps, Table};
use diag::Found;

/// A socket whose hook chose the backend just before it was removed shows itself as connected within
/// this time.
const AGAIN: Duration = Duration::from_millis(200);
const IDLE: Duration = Duration::from_secs(3_600);

/// Ends sockets, in a thread of its own.
pub struct Ender {
    sender: mpsc::Sender<Vec<Gone>>,
}

impl Ender {
    /// Starts the thread, in the network namespace of the caller. It ends with the value.
    ///
    /// # Errors
    ///
    /// A map is missing, or there is no thread to be had.
    pub fn start(maps: &Maps) -> Result<Self, Error> {
        let seen = Seen {
            v4: maps.table(name::SOCK_REV[0])?,
            v6: maps.table(name::SOCK_REV[1])?,
        };
        let (sender, receiver) = mpsc::channel();
        thread::Builder::new()
            .name("sockets".to_owned())
            .spawn(move || work(&receiver, &seen))
            .map_err(|source| Error::Kernel {
                what: "starting a thread",
                source,
            })?;
        Ok(Self { sender })
    }

    /// Ends the sockets of these backends, soon.
    pub fn end(&self, gone: Vec<Gone>) {
        if !gone.is_empty() {
            // The thread lives as long as the sender.
            let _ = self.sender.send(gone);
        }
    }
}

fn work(receiver: &mpsc::Receiver<Vec<Gone>>, seen: &Seen) {
    let mut again = Vec::new();
    loop {
        let pause = if again.is_empty() { IDLE } else { AGAIN };
        let gone = match receiver.recv_timeout(pause) {
            Ok(mut gone) => {
                gone.extend(receiver.try_iter().flatten());
                gone
            }
            Err(RecvTimeoutError::Timeout) => {
                sweep(&std::mem::take(&mut again), seen);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        sweep(&gone, seen);
        again.extend(gone);
    }
}

fn sweep(gone: &[Gone], seen: &Seen) {
    for protocol in [proto::UDP, proto::TCP] {
        let mut backends: BTreeMap<SocketAddr, BTreeSet<u32>> = BTreeMap::new();
        for gone in gone.iter().filter(|gone| gone.protocol == protocol) {
            let frontends = backends.entry(gone.backend).or_default();
            frontends.extend(&gone.frontends);
        }
        if backends.is_empty() {
            continue;
        }
        match end_all(protocol, &backends, seen) {
            Ok(0) => {}
            Ok(count) => info!(count, "ended sockets of the host whose backend is gone"),
            Err(error) => warn!(
                %error,
                "sockets of the host whose backend is gone cannot be ended (CONFIG_INET_DIAG_DESTROY, CAP_NET_ADMIN)"
            ),
        }
    }
}

fn end_all(
    protocol: u8,
    backends: &BTreeMap<SocketAddr, BTreeSet<u32>>,
    seen: &Seen,
) -> io::Result<usize> {
    let mut count = 0;
    for found in diag::list(protocol)? {
        let Some(frontends) = backends.get(&found.peer) else {
            continue;
        };
        let frontend = seen.frontend(protocol, &found).map_err(io::Error::other)?;
        if frontend.is_some_and(|frontend| frontends.contains(&frontend))
            && diag::destroy(protocol, &found)?
        {
            count += 1;
        }
    }
    Ok(count)
}

/// Which frontends sockets came through.
struct Seen {
    v4: Table<SockRevKey<Addr4>, SockRevVal<Addr4>>,
    v6: Table<SockRevKey<Addr6>, SockRevVal<Addr6>>,
}

impl Seen {
    fn frontend(&self, protocol: u8, found: &Found) -> Result<Option<u32>, Error> {
        match found.peer.ip() {
            IpAddr::V4(_) => find(&self.v4, protocol, found),
            IpAddr::V6(_) => find(&self.v6, protocol, found),
        }
    }
}

fn find<A: Family>(
    table: &Table<SockRevKey<A>, SockRevVal<A>>,
    protocol: u8,
    found: &Found,
) -> Result<Option<u32>, Error>
where
    SockRevKey<A>: Abi,
    SockRevVal<A>: Abi,
{
    let Some(addr) = A::from_ip(found.peer.ip()) else {
        return Ok(None);
    };
    let key = SockRevKey {
        cookie: [found.cookie as u32, (found.cookie >> 32) as u32],
        addr,
        port: Port::new(found.peer.port()),
        proto: protocol.into(),
        reserved: 0,
    };
    Ok(table.get(&key)?.map(|value| value.frontend))
}
