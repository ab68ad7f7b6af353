//! Talks to the agent.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::admin::protocol::{Request, Response};

/// No agent answers.
#[derive(Debug, thiserror::Error)]
#[error("no agent answers at {}: {reason}; start one with `sluice agent`, or name its --socket", path.display())]
pub struct Unreachable {
    path: PathBuf,
    reason: std::io::Error,
}

/// Asks and waits for the answer.
pub(super) fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T> {
    match stream(socket, request)?.next() {
        Some(answer) => answer,
        None => bail!("the agent ended without an answer"),
    }
}

/// Asks and gives the answers as they come.
pub(super) fn stream<T: DeserializeOwned>(
    socket: &Path,
    request: &Request,
) -> Result<impl Iterator<Item = Result<T>>> {
    let unreachable = |reason| Unreachable {
        path: socket.to_owned(),
        reason,
    };
    let mut stream = UnixStream::connect(socket).map_err(unreachable)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(unreachable)?;
    Ok(BufReader::new(stream).lines().map(|line| {
        let line = line.context("reading the answer")?;
        match serde_json::from_str::<Response<T>>(&line).context("the answer")? {
            Response::Ok(answer) => Ok(answer),
            Response::Error(text) => bail!("{text}"),
        }
    }))
}
