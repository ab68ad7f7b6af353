//! The kernel's list of sockets (`NETLINK_SOCK_DIAG`, `linux/inet_diag.h`), of this network namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rtnetlink::sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG};

const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const HEADER: usize = 16;
/// `inet_diag_sockid`.
const ID: usize = 48;
/// ESTABLISHED (which a connected socket for datagrams is in, too), SYN_SENT, FIN_WAIT1, FIN_WAIT2,
/// CLOSE_WAIT.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8;

/// A connected socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its peer; the IPv4 address for an IPv4-mapped one.
    pub peer: SocketAddr,
    /// Its cookie.
    pub cookie: u64,
    family: u8,
    id: [u8; ID],
}

/// Connected sockets of a protocol (IP number) in both families.
///
/// # Errors
///
/// The kernel's; it may be built without `CONFIG_INET_UDP_DIAG`.
pub fn list(protocol: u8) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let socket = open()?;
        let message = request(BY_FAMILY, DUMP, family as u8, protocol, STATES, &[0; ID]);
        socket.send(&message, 0)?;
        while each(&socket.recv_from_full()?.0, |kind, body| {
            if kind == BY_FAMILY {
                found.extend(parse(body));
            }
        })? {}
    }
    Ok(found)
}

/// Ends a socket: its owner's next call fails. False if it is gone already.
///
/// # Errors
///
/// The kernel's: `EOPNOTSUPP` if it is built without `CONFIG_INET_DIAG_DESTROY`, `EPERM` without
/// `CAP_NET_ADMIN`.
pub fn destroy(protocol: u8, found: &Found) -> io::Result<bool> {
    let socket = open()?;
    let message = request(DESTROY, ACK, found.family, protocol, STATES, &found.id);
    socket.send(&message, 0)?;
    match each(&socket.recv_from_full()?.0, |_, _| {}) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    Ok(socket)
}

/// A `nlmsghdr` and an `inet_diag_req_v2`.
fn request(kind: u16, flags: u16, family: u8, protocol: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let length = HEADER + 8 + ID;
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, protocol, 0, 0]);
    message.extend(states.to_ne_bytes());
    message.extend(id);
    message
}

/// Calls `take` with the type and body of each message; false if there is none after these.
fn each(mut data: &[u8], mut take: impl FnMut(u16, &[u8])) -> io::Result<bool> {
    while let Some((header, _)) = data.split_first_chunk::<HEADER>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = data.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
        match (kind, body.first_chunk::<4>()) {
            (DONE, _) => return Ok(false),
            (ERROR, Some(code)) => {
                return match i32::from_ne_bytes(*code) {
                    0 => Ok(false),
                    code => Err(io::Error::from_raw_os_error(-code)),
                };
            }
            _ => take(kind, body),
        }
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

/// An `inet_diag_msg`.
fn parse(body: &[u8]) -> Option<Found> {
    let family = *body.first()?;
    let id: [u8; ID] = body.get(4..4 + ID)?.try_into().ok()?;
    let port = u16::from_be_bytes([id[2], id[3]]);
    let (_, addresses) = id.split_at(4);
    let destination: [u8; 16] = addresses.get(16..32)?.try_into().ok()?;
    let ip = if i32::from(family) == libc::AF_INET {
        let [a, b, c, d, ..] = destination;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(destination)).to_canonical()
    };
    let half = |from: usize| id[from..from + 4].try_into().map(u32::from_ne_bytes);
    let (low, high) = (half(40).ok()?, half(44).ok()?);
    Some(Found {
        peer: SocketAddr::new(ip, port),
        cookie: u64::from(low) | u64::from(high) << 32,
        family,
        id,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use dataplane_common::net::proto;

    use super::*;

    #[test]
    fn connected_sockets_are_listed_with_their_peers() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let client = UdpSocket::bind("[::]:0").unwrap();
        client
            .connect((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), to.port()))
            .unwrap();
        let unconnected = UdpSocket::bind("127.0.0.1:0").unwrap();
        let found = list(proto::UDP).unwrap();
        assert_eq!(found.iter().filter(|one| one.peer == to).count(), 1);
        drop((client, unconnected));

        let listener = TcpListener::bind("[::1]:0").unwrap();
        let to = listener.local_addr().unwrap();
        let _client = TcpStream::connect(to).unwrap();
        let found = list(proto::TCP).unwrap();
        assert_eq!(found.iter().filter(|one| one.peer == to).count(), 1);
    }

    #[test]
    fn a_message_is_laid_out_as_the_kernel_reads_it() {
        let message = request(DESTROY, ACK, 2, proto::UDP, 0, &[7; ID]);
        assert_eq!(message.len(), 72);
        assert_eq!(message[..4], 72u32.to_ne_bytes());
        assert_eq!(message[16..20], [2, proto::UDP, 0, 0]);
    }

    #[test]
    fn messages_end_with_done_or_an_error() {
        let message = |kind: u16, body: &[u8]| {
            let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(body);
            bytes
        };
        let mut kinds = Vec::new();
        let two = [message(BY_FAMILY, &[1; 4]), message(DONE, &[0; 4])].concat();
        let more = each(&two, |kind, _| kinds.push(kind)).unwrap();
        assert_eq!((more, kinds), (false, vec![BY_FAMILY]));
        assert!(each(&message(BY_FAMILY, &[]), |_, _| {}).unwrap());
        let refused = message(ERROR, &(-1i32).to_ne_bytes());
        assert!(each(&refused, |_, _| {}).is_err());
        assert!(each(&message(BY_FAMILY, &[1; 4])[..18], |_, _| {}).is_err());
    }
}
