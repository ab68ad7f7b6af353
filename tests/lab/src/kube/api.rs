//! Requests to an API server, several at a time.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::netns::Netns;

/// Connections that requests are spread over.
const CONNECTIONS: usize = 24;

/// A client of an API server. Nothing limits its rate.
pub struct Api {
    runtime: Runtime,
    client: Client,
}

/// A request that writes an object.
#[derive(Clone, Debug)]
pub struct Write {
    method: &'static str,
    path: String,
    object: Value,
}

impl Write {
    /// Creates an object in a collection, as `/api/v1/nodes`.
    pub fn create(collection: &str, object: Value) -> Write {
        Write {
            method: "POST",
            path: collection.to_owned(),
            object,
        }
    }

    /// Replaces an object, or a part of it, as `/api/v1/namespaces/default/pods/x/status`.
    pub fn replace(path: &str, object: Value) -> Write {
        Write {
            method: "PUT",
            path: path.to_owned(),
            object,
        }
    }
}

impl Api {
    /// A client by a kubeconfig file. It connects from inside the namespace.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn new(netns: &Arc<Netns>, kubeconfig: &Path) -> Result<Api> {
        let netns = Arc::clone(netns);
        // All connections are made by the one thread that works.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || netns.enter().expect("root may enter a namespace it made"))
            .enable_all()
            .build()?;
        let file = Kubeconfig::read_from(kubeconfig)?;
        let _inside = runtime.enter();
        let config = runtime.block_on(Config::from_custom_kubeconfig(
            file,
            &KubeConfigOptions::default(),
        ))?;
        let client = Client::try_from(config)?;
        drop(_inside);
        Ok(Api { runtime, client })
    }

    /// Writes an object; returns when the answer had come.
    ///
    /// # Errors
    /// The server refuses.
    pub fn write(&self, write: Write) -> Result<Instant> {
        let client = self.client.clone();
        let sent = self
            .runtime
            .spawn(async move { send(&client, write).await });
        self.runtime.block_on(sent)?
    }

    /// Writes objects, each after the one before.
    ///
    /// # Errors
    /// The server refuses one of them.
    pub fn write_each(&self, writes: impl IntoIterator<Item = Write>) -> Result<()> {
        writes
            .into_iter()
            .try_for_each(|write| self.write(write).map(drop))
    }

    /// Writes objects in no order, several at a time.
    ///
    /// # Errors
    /// The server refuses one of them; the others may be written or not.
    pub fn write_all(&self, writes: impl Iterator<Item = Write> + Send + 'static) -> Result<()> {
        let client = self.client.clone();
        let all = self.runtime.spawn(async move {
            let mut under_way = JoinSet::new();
            for write in writes {
                if under_way.len() >= CONNECTIONS {
                    finished(under_way.join_next().await)?;
                }
                let client = client.clone();
                under_way.spawn(async move { send(&client, write).await });
            }
            while !under_way.is_empty() {
                finished(under_way.join_next().await)?;
            }
            anyhow::Ok(())
        });
        self.runtime.block_on(all)?
    }
}

fn finished(joined: Option<Result<Result<Instant>, tokio::task::JoinError>>) -> Result<()> {
    match joined {
        Some(result) => result?.map(drop),
        None => Ok(()),
    }
}

async fn send(client: &Client, write: Write) -> Result<Instant> {
    let Write {
        method,
        path,
        object,
    } = write;
    let request = http::Request::builder()
        .method(method)
        .uri(&path)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .context("a request that is none")?;
    let answer = client.request_text(request).await;
    let at = Instant::now();
    answer.map_err(|error| anyhow!("{method} {path}: {error}"))?;
    Ok(at)
}
