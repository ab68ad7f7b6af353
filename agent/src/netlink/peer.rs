//! The host side of a device in another namespace, asked for once and without a runtime.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};

use super::state::{Link, LinkKind, link};

/// The two ends of a pod's device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// Index of the host's end.
    pub ifindex: u32,
    /// Name of the host's end.
    pub name: String,
    /// Hardware address of the host's end.
    pub host_mac: [u8; 6],
    /// Hardware address of the pod's end.
    pub mac: [u8; 6],
}

/// Why there is no pair.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The namespace cannot be entered.
    #[error("entering the network namespace {path}: {source}")]
    Namespace {
        /// Its file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A device cannot be read.
    #[error("reading the device {name}: {source}")]
    Device {
        /// Which.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// It is not one end of a pair whose other end is in this namespace.
    #[error(
        "{0} is no veth with its other end on the host: plugins that make other devices (macvlan, \
         ipvlan, host-device) cannot be followed by this one"
    )]
    NoVeth(String),
}

/// The pair that a device in a network namespace belongs to. The calling thread enters the namespace and
/// comes back.
///
/// # Errors
///
/// There is no such namespace or device, or it is no veth from here.
pub fn host_side(netns: &Path, name: &str) -> Result<Pair, PairError> {
    let failed = |source| PairError::Namespace {
        path: netns.display().to_string(),
        source,
    };
    let own = File::open("/proc/thread-self/ns/net").map_err(failed)?;
    let other = File::open(netns).map_err(failed)?;
    setns(&other, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    let inside = read(Which::Name(name));
    setns(&own, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    let device = |name: String| move |source| PairError::Device { name, source };
    let (index, inside) = inside.map_err(device(name.to_owned()))?;
    let no_veth = || PairError::NoVeth(name.to_owned());
    let peer = match (inside.kind, inside.peer, inside.peer_netns) {
        (LinkKind::Veth, Some(peer), Some(_)) => peer,
        _ => return Err(no_veth()),
    };
    let (ifindex, host) = read(Which::Index(peer)).map_err(device(format!("with index {peer}")))?;
    if host.kind != LinkKind::Veth || host.peer != Some(index) || host.peer_netns.is_none() {
        return Err(no_veth());
    }
    Ok(Pair {
        ifindex,
        name: host.name,
        host_mac: host.mac,
        mac: inside.mac,
    })
}

enum Which<'a> {
    Name(&'a str),
    Index(u32),
}

/// A device of the calling thread's namespace (`RTM_GETLINK`).
fn read(which: Which<'_>) -> io::Result<(u32, Link)> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let mut ask = LinkMessage::default();
    match which {
        Which::Name(name) => ask.attributes.push(LinkAttribute::IfName(name.to_owned())),
        Which::Index(index) => ask.header.index = index,
    }
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetLink(ask));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    send(socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
    let mut bytes = vec![0; 64 * 1024];
    let length = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes[..length])
        .map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) => Ok(link(message)),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        other => Err(io::Error::other(format!("the kernel answers {other:?}"))),
    }
}
