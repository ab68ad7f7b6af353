//! One request, and what became of it.

use std::fmt;
use std::io::{self, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::http::{self, Response};

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status; 200 for UDP.
    pub status: u16,
    /// The server's name.
    pub name: String,
    /// The server's version.
    pub version: String,
    /// The client's address as the server saw it.
    pub peer: SocketAddr,
}

/// Where a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// In making the connection.
    Connect,
    /// In sending the request.
    Send,
    /// In waiting for the answer.
    Receive,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The system call failed with this `errno`.
    Errno(i32),
    /// Nothing came in time.
    Timeout,
    /// The connection ended first.
    Closed,
    /// Something came that is no answer.
    Malformed,
}

/// A failed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// Why.
    pub cause: Cause,
}

impl Failure {
    /// Refused in making the connection: nobody listens, or a proxy said so.
    pub fn is_refused(&self) -> bool {
        self.stage == Stage::Connect && self.cause == Cause::Errno(Errno::ECONNREFUSED as i32)
    }

    /// Nothing came back.
    pub fn is_timeout(&self) -> bool {
        self.cause == Cause::Timeout
    }

    pub(super) fn new(stage: Stage, error: &io::Error) -> Failure {
        let cause = match error.kind() {
            // A time-out of the socket reads as "would block".
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Cause::Timeout,
            ErrorKind::UnexpectedEof => Cause::Closed,
            ErrorKind::InvalidData => Cause::Malformed,
            _ => error.raw_os_error().map_or(Cause::Malformed, Cause::Errno),
        };
        Failure { stage, cause }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::Connect => "connect",
            Stage::Send => "send",
            Stage::Receive => "receive",
        };
        match self.cause {
            Cause::Errno(code) => write!(f, "{stage}: {:?}", Errno::from_raw(code)),
            Cause::Timeout => write!(f, "{stage}: time-out"),
            Cause::Closed => write!(f, "{stage}: closed"),
            Cause::Malformed => write!(f, "{stage}: malformed answer"),
        }
    }
}

impl std::error::Error for Failure {}

/// One GET on a connection of its own, from the calling thread's network namespace.
///
/// # Errors
/// Where and why it failed.
pub fn get(to: SocketAddr, path: &str, timeout: Duration) -> Result<Answer, Failure> {
    let mut connection = Connection::open(None, to, timeout)?;
    connection.get(path, true)
}

/// [`get`] from a given source address, port included (0: any).
///
/// # Errors
/// Where and why it failed.
pub fn get_from(
    from: SocketAddr,
    to: SocketAddr,
    path: &str,
    timeout: Duration,
) -> Result<Answer, Failure> {
    Connection::open(Some(from), to, timeout)?.get(path, true)
}

/// An open connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    /// Whether the server still takes requests on it.
    open: bool,
}

impl Connection {
    /// Connects from the calling thread's network namespace; `timeout` holds for connecting and
    /// for each answer.
    ///
    /// # Errors
    /// Where and why it failed.
    pub fn open(
        from: Option<SocketAddr>,
        to: SocketAddr,
        timeout: Duration,
    ) -> Result<Connection, Failure> {
        let connect = || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            if let Some(from) = from {
                socket.set_reuse_address(true)?;
                socket.bind(&SockAddr::from(from))?;
            }
            socket.connect_timeout(&to.into(), timeout)?;
            let stream = TcpStream::from(socket);
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            Ok(stream)
        };
        let stream = connect().map_err(|error| Failure::new(Stage::Connect, &error))?;
        Ok(Connection {
            stream: BufReader::new(stream),
            open: true,
        })
    }

    /// One request and its answer.
    ///
    /// # Errors
    /// Where and why it failed.
    pub fn get(&mut self, path: &str, close: bool) -> Result<Answer, Failure> {
        http::write_request(self.stream.get_mut(), path, close)
            .map_err(|error| Failure::new(Stage::Send, &error))?;
        let response = http::read_response(&mut self.stream)
            .map_err(|error| Failure::new(Stage::Receive, &error))?;
        self.open = !response.close;
        parse_answer(&response)
    }

    /// Whether the server left the connection open for another request.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// The underlying socket.
    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }
}

fn parse_answer(response: &Response) -> Result<Answer, Failure> {
    let malformed = Failure {
        stage: Stage::Receive,
        cause: Cause::Malformed,
    };
    parse_who(&response.body)
        .map(|(name, version, peer)| Answer {
            status: response.status,
            name,
            version,
            peer,
        })
        .ok_or(malformed)
}

/// Reads `<name> <version> <client address>`.
pub(super) fn parse_who(line: &str) -> Option<(String, String, SocketAddr)> {
    let mut words = line.lines().next()?.split_whitespace();
    let (name, version) = (words.next()?, words.next()?);
    Some((
        name.to_owned(),
        version.to_owned(),
        words.next()?.parse().ok()?,
    ))
}

/// How long something took, in microseconds.
pub(super) fn micros(since: Instant) -> u32 {
    u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX)
}
