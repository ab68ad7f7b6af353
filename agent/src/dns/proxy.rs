//! Passes queries on and answers back, and holds an answer until what it says is in force.

use std::collections::BTreeSet;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use dataplane_common::net::port;
use dataplane_model::snapshot::DomainPattern;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::message::{self, Resolved};
use super::places::Places;
use super::room::{self, Room};

/// Names that rules in force ask for.
pub type Wanted = Arc<BTreeSet<DomainPattern>>;

/// How long a nameserver has for an answer, and the agent to bring it into force. Resolvers ask again
/// after five seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// A connection without a message for so long is closed (RFC 7766 section 6.2.3).
const IDLE: Duration = Duration::from_secs(30);
/// Before another attempt at a room.
const AGAIN: Duration = Duration::from_secs(10);
/// After a failure of a socket, such as the want of another one.
const PAUSE: Duration = Duration::from_millis(50);
/// Datagrams that are under way, at most, and of one pod.
const DATAGRAMS: (usize, usize) = (1_024, 128);
/// Connections that are open, at most, and of one pod.
const CONNECTIONS: (usize, usize) = (256, 32);
/// The longest message.
const LONGEST: usize = u16::MAX as usize;

/// An answer that is held back.
#[derive(Debug)]
pub struct Answered {
    /// What it says of names that are wanted.
    pub resolved: Vec<Resolved>,
    /// To be told when that is in force, or cannot be.
    pub done: oneshot::Sender<()>,
}

/// The running proxy. It ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    wanted: watch::Sender<Wanted>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts it on the current runtime. What it learns goes to `answered`.
    pub fn start(wanted: Wanted, answered: mpsc::Sender<Answered>) -> Self {
        let (wanted, seen) = watch::channel(wanted);
        let desk = Arc::new(Desk {
            wanted: seen,
            answered,
        });
        let task = tokio::spawn(async move {
            loop {
                match room::open().await {
                    Ok(room) => {
                        info!(
                            "DNS of pods that rules with domain names concern goes through the proxy"
                        );
                        let error = serve(room, Arc::clone(&desk)).await;
                        warn!(%error, "the DNS proxy starts again");
                        sleep(PAUSE).await;
                    }
                    Err(error) => {
                        warn!(%error, "there is no DNS proxy: pods that rules with domain names concern have no DNS");
                        sleep(AGAIN).await;
                    }
                }
            }
        });
        Self { wanted, task }
    }

    /// Other names are wanted.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|known| {
            let changed = *known != wanted;
            *known = wanted;
            changed
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What all exchanges share.
struct Desk {
    wanted: watch::Receiver<Wanted>,
    answered: mpsc::Sender<Answered>,
}

impl Desk {
    /// Returns when an answer may go out: false if what it says does not come into force in time.
    async fn clear(&self, answer: &[u8]) -> bool {
        let wanted = Arc::clone(&self.wanted.borrow());
        let mut resolved = message::resolved(answer);
        resolved.retain(|one| wanted.iter().any(|pattern| pattern.matches(&one.name)));
        let Some(name) = resolved.first().map(|one| one.name.clone()) else {
            return true;
        };
        let (done, in_force) = oneshot::channel();
        let answered = Answered { resolved, done };
        let cleared =
            async { self.answered.send(answered).await.is_ok() && in_force.await.is_ok() };
        let cleared = timeout(PATIENCE, cleared).await.unwrap_or(false);
        if !cleared {
            warn!(
                name,
                "an answer is dropped: its addresses did not come into force in time"
            );
        }
        cleared
    }
}

/// Serves until it fails.
async fn serve(room: Room, desk: Arc<Desk>) -> io::Error {
    let sockets = UdpSocket::from_std(room.udp)
        .and_then(|udp| Ok((Arc::new(udp), TcpListener::from_std(room.tcp)?)));
    let (udp, tcp) = match sockets {
        Ok(sockets) => sockets,
        Err(error) => return error,
    };
    tokio::select! {
        () = datagrams(udp, Arc::clone(&desk)) => {}
        () = connections(tcp, desk) => {}
        () = room::closed() => {}
    }
    io::Error::other("its device is gone")
}

/// Whom a query came from and whom it is for; IPv4 addresses are mapped.
#[derive(Clone, Copy)]
struct Ends {
    client: SocketAddrV6,
    server: Ipv6Addr,
}

async fn datagrams(socket: Arc<UdpSocket>, desk: Arc<Desk>) {
    let places = Places::new(DATAGRAMS.0, DATAGRAMS.1);
    let mut exchanges = JoinSet::new();
    let mut buffer = vec![0; LONGEST];
    loop {
        let received = socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer));
        let (length, ends) = match received.await {
            Ok(received) => received,
            // Errors of what was sent before are told here too.
            Err(error) => {
                debug!(%error, "receiving a query");
                sleep(PAUSE).await;
                continue;
            }
        };
        while exchanges.try_join_next().is_some() {}
        let Some(place) = places.take(*ends.client.ip()) else {
            continue;
        };
        let query = buffer[..length].to_vec();
        let (socket, desk) = (Arc::clone(&socket), Arc::clone(&desk));
        exchanges.spawn(async move {
            let _place = place;
            let server = SocketAddr::new(ends.server.to_canonical(), port::DNS);
            match timeout(PATIENCE, ask(&query, server)).await {
                Ok(Ok(answer)) => {
                    if !desk.clear(&answer).await {
                        return;
                    }
                    let sent = socket.async_io(Interest::WRITABLE, || send(&socket, &answer, ends));
                    if let Err(error) = sent.await {
                        debug!(%error, client = %ends.client, "an answer is lost");
                    }
                }
                Ok(Err(error)) => debug!(%error, %server, "asking a nameserver"),
                Err(_) => debug!(%server, "the nameserver does not answer"),
            }
        });
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, Ends)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut room = nix::cmsg_space!(nix::libc::in6_pktinfo);
    let fd = socket.as_raw_fd();
    let received = recvmsg::<SockaddrIn6>(fd, &mut parts, Some(&mut room), MsgFlags::empty())?;
    let server = received.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(Ipv6Addr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    });
    let ends = received.address.zip(server).map(|(client, server)| Ends {
        client: client.into(),
        server,
    });
    let ends = ends.ok_or_else(|| io::Error::other("a query without addresses"))?;
    Ok((received.bytes, ends))
}

fn send(socket: &UdpSocket, answer: &[u8], ends: Ends) -> io::Result<usize> {
    let source = nix::libc::in6_pktinfo {
        ipi6_addr: nix::libc::in6_addr {
            s6_addr: ends.server.octets(),
        },
        ipi6_ifindex: 0,
    };
    let control = [ControlMessage::Ipv6PacketInfo(&source)];
    let to = SockaddrIn6::from(ends.client);
    let parts = [IoSlice::new(answer)];
    Ok(sendmsg(
        socket.as_raw_fd(),
        &parts,
        &control,
        MsgFlags::empty(),
        Some(&to),
    )?)
}

/// Asks a nameserver by a datagram, from a port of its own.
async fn ask(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    // Room that is not touched costs nothing.
    let mut answer = Vec::with_capacity(LONGEST);
    loop {
        socket.recv_buf(&mut answer).await?;
        if message::answers(query, &answer) {
            answer.shrink_to_fit();
            return Ok(answer);
        }
        answer.clear();
    }
}

async fn connections(listener: TcpListener, desk: Arc<Desk>) {
    let places = Places::new(CONNECTIONS.0, CONNECTIONS.1);
    let mut open = JoinSet::new();
    loop {
        let (client, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "accepting a connection for queries");
                sleep(PAUSE).await;
                continue;
            }
        };
        while open.try_join_next().is_some() {}
        let IpAddr::V6(from) = from.ip() else {
            continue;
        };
        let Some(place) = places.take(from) else {
            continue;
        };
        let desk = Arc::clone(&desk);
        open.spawn(async move {
            let _place = place;
            if let Err(error) = connection(client, &desk).await {
                debug!(%error, "a connection for queries ends");
            }
        });
    }
}

async fn connection(client: TcpStream, desk: &Desk) -> io::Result<()> {
    let to = client.local_addr()?;
    let server = SocketAddr::new(to.ip().to_canonical(), to.port());
    let server = timeout(PATIENCE, TcpStream::connect(server)).await??;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let queries = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await?;
        // Its answers are still to come.
        std::future::pending::<io::Result<()>>().await
    };
    let answers = async {
        while let Some(answer) = timeout(IDLE, read(&mut from_server)).await?? {
            if !desk.clear(&answer[2..]).await {
                return Err(io::Error::other("an answer was dropped"));
            }
            timeout(IDLE, to_client.write_all(&answer)).await??;
        }
        to_client.shutdown().await
    };
    tokio::select! {
        ended = queries => ended,
        ended = answers => ended,
    }
}

/// A message with its length before it (RFC 1035 section 4.2.2); `None` at the end.
async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    if from.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..]).await?;
    let mut message = length.to_vec();
    message.resize(2 + usize::from(u16::from_be_bytes(length)), 0);
    from.read_exact(&mut message[2..]).await?;
    Ok(Some(message))
}
