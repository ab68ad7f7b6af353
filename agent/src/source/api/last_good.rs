//! `default/kubernetes` never loses its last backends: they may be the only way by which the agent
//! reaches the API server, which is the only one to name others.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::source::core::EndpointSlice;
use crate::source::{Change, Kind, Object, ObjectKey};

/// The label that names a slice's Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The slices of `default/kubernetes`.
#[derive(Debug, Default)]
pub struct LastGood {
    /// The usable addresses of each slice in force.
    slices: BTreeMap<String, Vec<SocketAddr>>,
    /// By slice, what would leave a family without addresses.
    held: BTreeMap<String, Change>,
}

impl LastGood {
    /// The changes to pass on for this one: none if it takes a family's last addresses away, and
    /// what was held back before once there are others.
    pub fn filter(&mut self, change: Change) -> Vec<Change> {
        let Some((name, usable)) = self.about(&change) else {
            return vec![change];
        };
        self.held.remove(&name);
        let before = self.slices.get(&name).cloned().unwrap_or_default();
        let lost = |is_ipv4: bool| {
            let of_family = |address: &&SocketAddr| address.is_ipv4() == is_ipv4;
            let others = self.slices.iter().filter(|(other, _)| **other != name);
            before.iter().any(|address| of_family(&address))
                && !usable.iter().any(|address| of_family(&address))
                && !others
                    .flat_map(|(_, addresses)| addresses)
                    .any(|address| of_family(&address))
        };
        if lost(true) || lost(false) {
            self.held.insert(name, change);
            return Vec::new();
        }
        match &change {
            Change::Delete(_) => self.slices.remove(&name),
            Change::Apply { .. } => self.slices.insert(name, usable),
        };
        let mut changes = vec![change];
        for (_, held) in std::mem::take(&mut self.held) {
            changes.extend(self.filter(held));
        }
        changes
    }

    /// The API servers.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.slices.values().flatten().copied().collect()
    }

    /// The name and the usable addresses of a slice of `default/kubernetes`.
    fn about(&self, change: &Change) -> Option<(String, Vec<SocketAddr>)> {
        match change {
            Change::Apply { object, .. } => {
                let Object::EndpointSlice(slice) = &**object else {
                    return None;
                };
                let meta = &slice.metadata;
                let mine = meta.namespace.as_deref() == Some("default")
                    && meta
                        .labels
                        .get(SERVICE_NAME_LABEL)
                        .is_some_and(|name| name == "kubernetes");
                mine.then(|| (meta.name.clone().unwrap_or_default(), usable(slice)))
            }
            Change::Delete(key) => {
                let mine = key.kind == Kind::EndpointSlice
                    && key.namespace == "default"
                    && self.slices.contains_key(&key.name);
                mine.then(|| (key.name.clone(), Vec::new()))
            }
        }
    }
}

/// True for the Service itself, which the API server makes again when it is deleted.
pub fn is_kept(key: &ObjectKey) -> bool {
    key.kind == Kind::Service && key.namespace == "default" && key.name == "kubernetes"
}

fn usable(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let ports = || {
        slice
            .ports
            .iter()
            .filter_map(|port| u16::try_from(port.port?).ok())
    };
    let endpoints = slice.endpoints.iter();
    let ready = endpoints.filter(|endpoint| endpoint.conditions.ready != Some(false));
    let addresses = ready.filter_map(|endpoint| endpoint.addresses.first()?.parse().ok());
    addresses
        .flat_map(|address| ports().map(move |port| SocketAddr::new(address, port)))
        .collect()
}
