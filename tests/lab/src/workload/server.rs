//! A server that says who it is, over HTTP and UDP, and that can stop without cutting anybody off.

use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::http::{self, Response};
use crate::wait;

/// How often a waiting thread looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);
/// How long a stopping server waits for another request on an open connection.
const DRAIN: Duration = Duration::from_secs(2);
/// The most that a client can ask for.
const PAD_LIMIT: usize = 1 << 20;
/// The longest datagram that is answered.
const DATAGRAM: usize = 9000;

/// What a server is and where it listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSpec {
    /// The name it answers with, one word; empty: `-`.
    pub name: String,
    /// The version it answers with, one word; empty: `-`.
    pub version: String,
    /// Ports it serves HTTP on, in both families.
    pub tcp: Vec<u16>,
    /// Ports it answers datagrams on, in both families.
    pub udp: Vec<u16>,
    /// The addresses of these; none: all, and an answer comes from the one that its route has.
    pub udp_at: Vec<IpAddr>,
    /// Whether `/ready` says no; every other path is answered all the same.
    pub not_ready: bool,
}

/// A running server. Dropping it stops it at once.
///
/// HTTP: the body is `<name> <version> <client address>`; `/pad/<number>` asks for so many bytes
/// more. UDP: the same line, and the datagram.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    spec: ServerSpec,
    /// No new connections; open ones are told to close.
    draining: AtomicBool,
    /// Everything ends now.
    stopped: AtomicBool,
    /// Threads still at work.
    busy: AtomicUsize,
}

impl Server {
    /// Binds in the calling thread's network namespace (see [`crate::netns::Netns::run`]) and
    /// serves from threads.
    ///
    /// # Errors
    /// A port is taken.
    pub fn start(spec: ServerSpec) -> io::Result<Server> {
        let listeners = spec
            .tcp
            .iter()
            .map(|port| listen(*port))
            .collect::<io::Result<Vec<_>>>()?;
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let ips = match spec.udp_at.as_slice() {
            [] => &any,
            ips => ips,
        };
        let pairs = spec
            .udp
            .iter()
            .flat_map(|port| ips.iter().map(|ip| SocketAddr::new(*ip, *port)));
        let sockets = pairs.map(bind_udp).collect::<io::Result<Vec<_>>>()?;
        let shared = Arc::new(Shared {
            spec,
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
        });
        for listener in listeners {
            shared.clone().work(move |shared| accept(&listener, shared));
        }
        for socket in sockets {
            shared.clone().work(move |shared| echo(&socket, shared));
        }
        Ok(Server { shared })
    }

    /// Stops without cutting anybody off: what waits is still accepted, each open connection gets
    /// the answer to its next request with `Connection: close`. Returns when all is quiet.
    pub fn drain(self) {
        self.shared.draining.store(true, Ordering::Release);
        let quiet = || self.shared.busy.load(Ordering::Acquire) == 0;
        // Dropping cuts off those that are still not done: they had their time.
        let _ = wait::until_true(2 * DRAIN, "the server's connections to end", quiet);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.draining.store(true, Ordering::Release);
        let quiet = || self.shared.busy.load(Ordering::Acquire) == 0;
        let _ = wait::until_true(DRAIN, "the server's threads to end", quiet);
    }
}

impl Shared {
    fn work(self: Arc<Self>, job: impl FnOnce(&Arc<Shared>) + Send + 'static) {
        self.busy.fetch_add(1, Ordering::AcqRel);
        thread::spawn(move || {
            job(&self);
            self.busy.fetch_sub(1, Ordering::AcqRel);
        });
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn answer(&self, path: &str, peer: SocketAddr, close: bool) -> Response {
        let status = if path == "/ready" && self.spec.not_ready {
            503
        } else {
            200
        };
        let pad = path
            .strip_prefix("/pad/")
            .and_then(|bytes| bytes.parse().ok());
        let body = self.who(peer) + &"x".repeat(pad.unwrap_or(0).min(PAD_LIMIT));
        Response {
            status,
            close,
            body,
        }
    }

    fn who(&self, peer: SocketAddr) -> String {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let or_dash = |word: &str| if word.is_empty() { "-" } else { word }.to_owned();
        let (name, version) = (or_dash(&self.spec.name), or_dash(&self.spec.version));
        format!("{name} {version} {peer}\n")
    }
}

/// Accepts until told to drain, then takes what is still in the queue.
fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let draining = shared.draining();
        if draining && listener.set_nonblocking(true).is_err() {
            return;
        }
        match listener.accept() {
            Ok((stream, peer)) => {
                shared.clone().work(move |shared| {
                    // A client that goes away is its own affair.
                    let _ = converse(&stream, peer, shared);
                });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && draining => return,
            Err(_) if shared.stopped() => return,
            Err(_) => {}
        }
    }
}

/// Answers the requests of one connection.
fn converse(stream: &TcpStream, peer: SocketAddr, shared: &Shared) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK))?;
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    while await_request(&mut reader, shared)? {
        let Some(request) = http::read_request(&mut reader)? else {
            return Ok(());
        };
        let close = request.close || shared.draining();
        http::write_response(&mut writer, &shared.answer(&request.path, peer, close))?;
        if close {
            return Ok(());
        }
    }
    Ok(())
}

/// Waits for the first byte of a request; false when the connection is to end instead.
fn await_request(reader: &mut BufReader<&TcpStream>, shared: &Shared) -> io::Result<bool> {
    let mut drained_at = None;
    loop {
        match reader.fill_buf() {
            Ok(bytes) => return Ok(!bytes.is_empty()),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(_) if shared.stopped() => return Ok(false),
            Err(_) if shared.draining() => {
                if drained_at.get_or_insert_with(Instant::now).elapsed() > DRAIN {
                    return Ok(false);
                }
            }
            Err(_) => {}
        }
    }
}

/// Answers datagrams until told to drain.
fn echo(socket: &UdpSocket, shared: &Arc<Shared>) {
    let mut buffer = [0; DATAGRAM];
    while !shared.draining() {
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let mut answer = shared.who(peer).into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        // An error here is about an earlier datagram, or a client that is gone.
        let _ = socket.send_to(&answer, peer);
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    // On Linux a receive time-out ends a waiting accept too.
    socket2::SockRef::from(&listener).set_read_timeout(Some(LOOK))?;
    Ok(listener)
}

fn bind_udp(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_read_timeout(Some(LOOK))?;
    socket.bind(&at.into())?;
    Ok(socket.into())
}
