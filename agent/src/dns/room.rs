//! The proxy's own network namespace. Every address is local there: it takes queries to any nameserver, and
//! answers in its name. Nothing leads into it but its device, and nothing of the host's configuration concerns it.
//!
//! The namespace and its device end with the sockets, so with the agent.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use futures_util::TryStreamExt;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, setsockopt, socket,
    sockopt,
};
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::packet_route::rule::RuleAction;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{DEVICE, MACS};
use dataplane_common::net::port;

/// The proxy's end of the device.
const INNER: &str = "eth0";
/// The network namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";
const LOOPBACK: u32 = 1;
/// What every pod's device takes (RFC 8200 section 5).
const MTU: u32 = 1_280;
/// The table of routes for what comes in.
const TABLE: u32 = 100;
/// Between two looks at whether the device is there.
const LOOK: Duration = Duration::from_secs(10);
/// Connections that wait to be accepted.
const WAITING: i32 = 128;

/// True if this process may make network namespaces: then it may enter its own.
pub fn is_possible() -> bool {
    let own = File::open(OWN);
    own.is_ok_and(|own| setns(own, CloneFlags::CLONE_NEWNET).is_ok())
}

/// The sockets that live in the namespace, and hold it.
pub(super) struct Room {
    /// Queries in datagrams.
    pub(super) udp: UdpSocket,
    /// Queries in connections.
    pub(super) tcp: TcpListener,
}

/// Why there is no room for the proxy.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoomError {
    /// No namespace: the capability is missing, say.
    #[error("making a network namespace, which needs CAP_SYS_ADMIN: {0}")]
    Namespace(io::Error),
    /// No socket.
    #[error("opening sockets for any address: {0}")]
    Socket(io::Error),
    /// A request to the kernel failed.
    #[error("{what}: {source}")]
    Netlink {
        /// What was asked for.
        what: &'static str,
        /// Why.
        source: rtnetlink::Error,
    },
    /// There is no device of that name.
    #[error("the device {0} is gone")]
    NoDevice(&'static str),
}

/// Devices and routes of one namespace.
struct Net {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Net {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Makes the namespace with its device, whose other end appears in this one.
///
/// # Errors
///
/// The kernel's.
pub(super) async fn open() -> Result<Room, RoomError> {
    let own = File::open(OWN).map_err(RoomError::Namespace)?;
    let host = Net::new().map_err(RoomError::Socket)?;
    // One that a former agent's end has not taken away yet.
    if let Ok(former) = host.index(DEVICE).await {
        let removed = host.handle.link().del(former).execute().await;
        removed.map_err(failed("removing the former device"))?;
    }
    let (room, inside) = enter().await?;
    let [inner_mac, outer_mac] = MACS;
    let pair = LinkVeth::new(INNER, DEVICE)
        .mtu(MTU)
        .arp(false)
        .address(inner_mac.to_vec());
    let made = inside.handle.link().add(pair.build()).execute().await;
    made.map_err(failed("making the device"))?;
    let (inner, outer) = (inside.index(INNER).await?, inside.index(DEVICE).await?);
    let outer = LinkUnspec::new_with_index(outer)
        .mtu(MTU)
        .arp(false)
        .address(outer_mac.to_vec());
    inside.set(outer).await?;
    let outer = inside.index(DEVICE).await?;
    inside
        .set(LinkUnspec::new_with_index(outer).setns_by_fd(own.as_raw_fd()))
        .await?;
    host.set(LinkUnspec::new_with_index(host.index(DEVICE).await?).up())
        .await?;
    inside
        .set(LinkUnspec::new_with_index(LOOPBACK).up())
        .await?;
    inside.set(LinkUnspec::new_with_index(inner).up()).await?;
    inside
        .route(inner)
        .await
        .map_err(failed("setting routes"))?;
    Ok(room)
}

/// Returns when the device of an open room is gone.
pub(super) async fn closed() {
    while let Ok(host) = Net::new()
        && !matches!(host.index(DEVICE).await, Err(RoomError::NoDevice(_)))
    {
        sleep(LOOK).await;
    }
}

fn failed(what: &'static str) -> impl Fn(rtnetlink::Error) -> RoomError {
    move |source| RoomError::Netlink { what, source }
}

impl Net {
    /// Of the calling thread's namespace, on the current runtime.
    fn new() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        Ok(Self { handle, connection })
    }

    async fn index(&self, name: &'static str) -> Result<u32, RoomError> {
        let mut found = self
            .handle
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        match found.try_next().await {
            Ok(Some(link)) => Ok(link.header.index),
            _ => Err(RoomError::NoDevice(name)),
        }
    }

    async fn set(&self, link: rtnetlink::LinkMessageBuilder<LinkUnspec>) -> Result<(), RoomError> {
        let set = self.handle.link().set(link.build()).execute().await;
        set.map_err(failed("setting up the device"))
    }

    /// What comes in by the device is local, whatever it is addressed to; what goes out leaves by it.
    async fn route(&self, inner: u32) -> Result<(), rtnetlink::Error> {
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new;
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new;
        let here4 = v4()
            .table_id(TABLE)
            .output_interface(LOOPBACK)
            .kind(RouteType::Local)
            .scope(RouteScope::Host);
        let here6 = v6()
            .table_id(TABLE)
            .output_interface(LOOPBACK)
            .kind(RouteType::Local);
        let out4 = v4().output_interface(inner).scope(RouteScope::Link);
        let out6 = v6().output_interface(inner);
        for route in [here4.build(), here6.build(), out4.build(), out6.build()] {
            self.handle.route().add(route).execute().await?;
        }
        let rule = || {
            let rule = self
                .handle
                .rule()
                .add()
                .input_interface(INNER)
                .table_id(TABLE);
            rule.action(RuleAction::ToTable).priority(TABLE)
        };
        rule().v4().execute().await?;
        rule().v6().execute().await
    }
}

/// Makes the namespace on a thread that ends: what was made there stays there.
async fn enter() -> Result<(Room, Net), RoomError> {
    let (sender, receiver) = oneshot::channel();
    let runtime = runtime::Handle::current();
    std::thread::spawn(move || {
        let _context = runtime.enter();
        let entered =
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| RoomError::Namespace(errno.into()));
        let made = entered.and_then(|()| furnish().map_err(RoomError::Socket));
        // Whoever asked may be gone.
        let _ = sender.send(made);
    });
    let gone = |_| RoomError::Namespace(io::Error::other("its thread ended"));
    receiver.await.map_err(gone)?
}

fn furnish() -> io::Result<(Room, Net)> {
    let udp = any_address(SockType::Datagram)?;
    setsockopt(&udp, sockopt::Ipv6RecvPacketInfo, &true)?;
    let tcp = any_address(SockType::Stream)?;
    listen(&tcp, Backlog::new(WAITING)?)?;
    let room = Room {
        udp: udp.into(),
        tcp: tcp.into(),
    };
    Ok((room, Net::new()?))
}

/// A socket of both families that has every address.
fn any_address(kind: SockType) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet6, kind, flags, None)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    setsockopt(&socket, sockopt::IpTransparent, &true)?;
    let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port::DNS, 0, 0);
    bind(socket.as_raw_fd(), &SockaddrIn6::from(any))?;
    Ok(socket)
}
