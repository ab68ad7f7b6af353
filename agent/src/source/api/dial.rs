//! Connects to the API server: at its configured address, or at one of those that the endpoints of
//! `default/kubernetes` name, for when the configured one leads nowhere.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tracing::debug;

/// A server in reach answers sooner; the next address is tried then.
const CONNECT: Duration = Duration::from_secs(3);

/// The addresses of the API servers.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    configured: (String, u16),
    learnt: Vec<SocketAddr>,
    /// Where to begin: 0 is the configured one.
    first: usize,
    connected: Option<SocketAddr>,
}

impl Addresses {
    /// Sets the configured address.
    pub fn configure(&self, host: &str, port: u16) {
        self.lock().configured = (host.to_owned(), port);
    }

    /// Sets the servers' own addresses; none is no news.
    pub fn learn(&self, mut addresses: Vec<SocketAddr>) {
        addresses.sort();
        addresses.dedup();
        if !addresses.is_empty() {
            self.lock().learnt = addresses;
        }
    }

    /// The servers' own addresses.
    pub fn learnt(&self) -> Vec<SocketAddr> {
        self.lock().learnt.clone()
    }

    /// The next connection begins with another address: the last one took connections and did not
    /// answer.
    pub fn skip(&self) {
        let mut inner = self.lock();
        inner.first = (inner.first + 1) % (inner.learnt.len() + 1);
    }

    /// The next connection begins with the configured address.
    pub fn reset(&self) {
        self.lock().first = 0;
    }

    /// Where the last connection went.
    pub fn connected(&self) -> Option<SocketAddr> {
        self.lock().connected
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(self) -> io::Result<TokioIo<TcpStream>> {
        let (configured, learnt, first) = {
            let inner = self.lock();
            (inner.configured.clone(), inner.learnt.clone(), inner.first)
        };
        let count = learnt.len() + 1;
        let mut failure = None;
        for place in (first..first + count).map(|place| place % count) {
            let tried = if place == 0 {
                timeout(CONNECT, by_name(&configured)).await
            } else {
                timeout(CONNECT, TcpStream::connect(learnt[place - 1])).await
            };
            let name = match place {
                0 => format!("{} port {}", configured.0, configured.1),
                _ => learnt[place - 1].to_string(),
            };
            match tried {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    self.lock().connected = stream.peer_addr().ok();
                    debug!(server = %name, "connected");
                    return Ok(TokioIo::new(stream));
                }
                Ok(Err(error)) => failure = Some(named(&name, error.kind(), &error.to_string())),
                Err(_) => {
                    let text = format!("no connection within {} s", CONNECT.as_secs());
                    failure = Some(named(&name, io::ErrorKind::TimedOut, &text));
                }
            }
        }
        Err(failure.unwrap_or_else(|| io::Error::other("no address to connect to")))
    }
}

fn named(name: &str, kind: io::ErrorKind, text: &str) -> io::Error {
    io::Error::new(kind, format!("{name}: {text}"))
}

async fn by_name((host, port): &(String, u16)) -> io::Result<TcpStream> {
    let mut failure = None;
    for address in lookup_host((host.as_str(), *port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::other("the name has no address")))
}

impl tower::Service<Uri> for Addresses {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}
