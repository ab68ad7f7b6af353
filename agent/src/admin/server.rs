//! Listens on the socket and passes requests to the agent's task.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use super::flows;
use super::names::Names;
use super::protocol::{Request, Response};
use crate::observe::events::Hub;

/// Requests that may wait for the agent's task.
const WAITING: usize = 64;
/// Longest request in bytes: some come with manifests.
const LONGEST: u64 = 4 << 20;

/// A request, and where its answer goes.
pub struct Question {
    /// The request.
    pub request: Request,
    /// The answer.
    pub reply: oneshot::Sender<Response<Value>>,
}

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another agent serves it.
    #[error("another agent answers at {}: stop it, or give this one another --socket", .0.display())]
    Taken(PathBuf),
    /// It cannot be made.
    #[error("making the socket {}: {reason}; name another file with --socket", path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
}

/// Checks that no agent answers at a socket: one that nobody answers is left over from an agent that
/// was killed.
///
/// # Errors
///
/// [`Error::Taken`].
pub fn check_free(path: &Path) -> Result<(), Error> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(Error::Taken(path.to_owned())),
        Err(_) => Ok(()),
    }
}

/// Serves the socket, on the current runtime. The file is for its owner only.
///
/// # Errors
///
/// The socket is taken or cannot be made.
pub fn listen(
    path: &Path,
    hub: Hub,
    names: watch::Receiver<Arc<Names>>,
) -> Result<mpsc::Receiver<Question>, Error> {
    let listener = bind(path)?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let hub = Arc::new(hub);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (sender, hub, names) = (sender.clone(), Arc::clone(&hub), names.clone());
                    tokio::spawn(async move {
                        if let Err(error) = serve(stream, &sender, &hub, names).await {
                            debug!(%error, "a client of the socket went away");
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "accepting on the socket");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(receiver)
}

fn bind(path: &Path) -> Result<UnixListener, Error> {
    let make = |reason| Error::Make {
        path: path.to_owned(),
        reason,
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(make)?;
    }
    check_free(path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(make(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(make)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(make)?;
    Ok(listener)
}

async fn serve(
    stream: UnixStream,
    agent: &mpsc::Sender<Question>,
    hub: &Hub,
    names: watch::Receiver<Arc<Names>>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(tokio::io::AsyncReadExt::take(read, LONGEST)).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str::<Request>(&line) {
            Ok(Request::Flows) => {
                // It has fresh names from now on.
                ask(agent, Request::Flows).await;
                return flows::stream(&mut write, hub, names).await;
            }
            Ok(request) => send(&mut write, &ask(agent, request).await).await?,
            Err(error) => {
                let answer = Response::<Value>::Error(format!("the request: {error}"));
                send(&mut write, &answer).await?;
            }
        }
    }
    Ok(())
}

async fn ask(agent: &mpsc::Sender<Question>, request: Request) -> Response<Value> {
    let (reply, answer) = oneshot::channel();
    let asked = agent.send(Question { request, reply }).await;
    match (asked, answer.await) {
        (Ok(()), Ok(answer)) => answer,
        _ => Response::Error("the agent is ending".to_owned()),
    }
}

/// Writes one line.
pub(super) async fn send<T: serde::Serialize>(
    write: &mut tokio::net::unix::OwnedWriteHalf,
    response: &Response<T>,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    write.write_all(&line).await
}
