//! Datagrams and their answers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::client::{Answer, Cause, Failure, Stage, parse_who};

/// Makes every datagram different, so that a late answer is not taken for another's.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A client's socket.
#[derive(Debug)]
pub struct UdpClient {
    socket: UdpSocket,
    to: SocketAddr,
    connected: bool,
}

impl UdpClient {
    /// A socket in the calling thread's network namespace. A connected one takes answers only from
    /// `to` (the kernel sees to that), an unconnected one looks at the sender itself.
    ///
    /// # Errors
    /// The kernel refuses the socket, or the connect.
    pub fn open(to: SocketAddr, connected: bool) -> Result<UdpClient, Failure> {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let open = || {
            let socket = UdpSocket::bind((any, 0))?;
            if connected {
                socket.connect(to)?;
            }
            Ok(socket)
        };
        let socket = open().map_err(|error: io::Error| Failure::new(Stage::Connect, &error))?;
        Ok(UdpClient {
            socket,
            to,
            connected,
        })
    }

    /// Sends one datagram and waits for its answer.
    ///
    /// # Errors
    /// Where and why it failed; an answer from another address than the one asked is malformed.
    pub fn ask(&self, timeout: Duration) -> Result<Answer, Failure> {
        let token = format!("token-{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        let sent = if self.connected {
            self.socket.send(token.as_bytes())
        } else {
            self.socket.send_to(token.as_bytes(), self.to)
        };
        sent.map_err(|error| Failure::new(Stage::Send, &error))?;
        self.answer_to(&token, timeout)
    }

    /// The client's own address, as its namespace sees it.
    ///
    /// # Errors
    /// The socket has none.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn answer_to(&self, token: &str, timeout: Duration) -> Result<Answer, Failure> {
        let deadline = Instant::now() + timeout;
        let failed = |error: &io::Error| Failure::new(Stage::Receive, error);
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure {
                    stage: Stage::Receive,
                    cause: Cause::Timeout,
                });
            }
            self.socket
                .set_read_timeout(Some(left))
                .map_err(|error| failed(&error))?;
            let (length, from) = self.socket.recv_from(&mut buffer).map_err(|e| failed(&e))?;
            let text = String::from_utf8_lossy(&buffer[..length]);
            // The answer to an earlier question, which was given up.
            if !text.ends_with(token) {
                continue;
            }
            let malformed = Failure {
                stage: Stage::Receive,
                cause: Cause::Malformed,
            };
            if from != self.to {
                return Err(malformed);
            }
            let (name, version, peer) = parse_who(&text).ok_or(malformed)?;
            return Ok(Answer {
                status: 200,
                name,
                version,
                peer,
            });
        }
    }
}

/// One datagram from a socket of its own, from the calling thread's network namespace.
///
/// # Errors
/// Where and why it failed.
pub fn ask(to: SocketAddr, timeout: Duration) -> Result<Answer, Failure> {
    UdpClient::open(to, false)?.ask(timeout)
}
