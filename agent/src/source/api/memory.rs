//! Where the API servers were, on disk: an agent that starts while no slice of `default/kubernetes` names
//! one, or while the configured address leads nowhere, goes on with those.
//!
//! The file is beside the agent's socket. The maps hold the same backends, but not that they are the API
//! servers'; and under `/run` the file ends with the node's uptime, as the maps do.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::last_good::SERVICE;
use crate::source::core::{Endpoint, EndpointPort, EndpointSlice, SERVICE_NAME_LABEL};
use crate::source::schema::ObjectMeta;

/// The file.
#[derive(Debug, Default)]
pub struct Memory {
    file: Option<PathBuf>,
    /// What it holds.
    text: String,
}

/// A slice, reduced to what connections need.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slice {
    name: String,
    address_type: String,
    ports: Vec<Port>,
    /// Of endpoints that were ready.
    addresses: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    port: i64,
}

impl Memory {
    /// What a file holds or will hold; `None`: nothing is kept.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self {
            file,
            text: String::new(),
        }
    }

    /// The slices that were written last; none if there is no such file, or it cannot be used.
    pub fn read(&mut self) -> Vec<EndpointSlice> {
        let Some(file) = &self.file else {
            return Vec::new();
        };
        let text = match fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                debug!(%error, file = %file.display(), "no API servers are known from before");
                return Vec::new();
            }
        };
        match serde_json::from_str::<Vec<Slice>>(&text) {
            Ok(slices) => {
                self.text = text;
                slices.into_iter().map(EndpointSlice::from).collect()
            }
            Err(error) => {
                warn!(%error, file = %file.display(), "the API servers from before cannot be read; they are written anew");
                Vec::new()
            }
        }
    }

    /// Keeps slices, if they are others than before.
    pub fn write<'a>(&mut self, slices: impl Iterator<Item = &'a EndpointSlice>) {
        let Some(file) = &self.file else {
            return;
        };
        let slices: Vec<Slice> = slices.map(Slice::from).collect();
        // Numbers and texts can always be written.
        let text = serde_json::to_string(&slices).unwrap_or_default();
        if text == self.text {
            return;
        }
        let written = (|| -> io::Result<()> {
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder)?;
            }
            let new = file.with_extension("new");
            fs::write(&new, &text)?;
            fs::rename(&new, file)
        })();
        if let Err(error) = written {
            warn!(%error, file = %file.display(), "keeping the API servers' addresses; a restarted agent knows only the configured one");
        }
        self.text = text;
    }
}

impl From<&EndpointSlice> for Slice {
    fn from(slice: &EndpointSlice) -> Self {
        let ports = slice.ports.iter().filter_map(|port| {
            Some(Port {
                name: port.name.clone(),
                protocol: port.protocol.clone(),
                port: port.port?,
            })
        });
        let ready = slice
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.is_ready());
        Self {
            name: slice.metadata.name.clone().unwrap_or_default(),
            address_type: slice.address_type.clone(),
            ports: ports.collect(),
            addresses: ready
                .filter_map(|endpoint| endpoint.addresses.first().cloned())
                .collect(),
        }
    }
}

impl From<Slice> for EndpointSlice {
    fn from(slice: Slice) -> Self {
        let (namespace, service) = SERVICE;
        let label = (SERVICE_NAME_LABEL.to_owned(), service.to_owned());
        Self {
            metadata: ObjectMeta {
                name: Some(slice.name),
                namespace: Some(namespace.to_owned()),
                labels: [label].into(),
                ..ObjectMeta::default()
            },
            address_type: slice.address_type,
            endpoints: (slice.addresses.into_iter())
                .map(|address| Endpoint {
                    addresses: vec![address],
                    ..Endpoint::default()
                })
                .collect(),
            ports: (slice.ports.into_iter())
                .map(|port| EndpointPort {
                    name: port.name,
                    protocol: port.protocol,
                    port: Some(port.port),
                    ..EndpointPort::default()
                })
                .collect(),
            ..Self::default()
        }
    }
}
