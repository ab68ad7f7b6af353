//! Listening sockets.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// Listens on an address; an unspecified one of either family means all addresses of both, as Go's
/// does.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_unspecified() {
        return bind(address);
    }
    let both = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), address.port());
    match bind(both) {
        // Without IPv6 in the kernel.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => bind(address),
        result => result,
    }
}

/// Listens as soon as nobody else does.
pub async fn until_free(address: SocketAddr, pause: Duration) -> TcpListener {
    loop {
        tokio::time::sleep(pause).await;
        if let Ok(listener) = listen(address) {
            return listener;
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A former agent's connections may still be in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
