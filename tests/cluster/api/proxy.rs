//! A TCP proxy that does to connections what networks do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What becomes of connections, those that are there and new ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Everything passes.
    Pass,
    /// Nothing passes; connections stay, and new ones are taken.
    BlackHole,
    /// Connections are reset.
    Reset,
    /// Connections are closed, new ones as soon as they have sent something.
    Close,
}

/// The proxy.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts it.
    pub async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (mode, seen) = watch::channel(Mode::Pass);
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut pipes = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.expect("a connection");
                counter.fetch_add(1, Ordering::Relaxed);
                pipes.spawn(carry(client, to, seen.clone()));
            }
        });
        Self {
            address,
            mode,
            connections,
            _tasks: tasks,
        }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what becomes of connections.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn carry(mut client: TcpStream, to: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let Ok(mut server) = TcpStream::connect(to).await else {
        return;
    };
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let now = *mode.borrow_and_update();
        if now == Mode::Reset {
            let _ = client.set_zero_linger();
            return;
        }
        let dark = now == Mode::BlackHole;
        tokio::select! {
            biased;
            changed = mode.changed() => match changed {
                Ok(()) if *mode.borrow() == Mode::Close => return,
                Ok(()) => {}
                Err(_) => return,
            },
            read = client.read(&mut up), if !dark => match read {
                Ok(0) | Err(_) => return,
                Ok(_) if now == Mode::Close => return,
                Ok(count) => if server.write_all(&up[..count]).await.is_err() { return },
            },
            read = server.read(&mut down), if !dark => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => if client.write_all(&down[..count]).await.is_err() { return },
            },
        }
    }
}
