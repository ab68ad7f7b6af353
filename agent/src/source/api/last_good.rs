//! `default/kubernetes` never loses its last backends: they may be the only way by which the agent
//! reaches the API server, which is the only one to name others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::ORIGIN;
use crate::source::core::{EndpointSlice, SERVICE_NAME_LABEL};
use crate::source::{Change, Kind, Object, ObjectKey};

/// Namespace and name of the API servers' Service.
pub const SERVICE: (&str, &str) = ("default", "kubernetes");

/// The slices of `default/kubernetes`.
#[derive(Debug, Default)]
pub struct LastGood {
    /// Each slice in force, with its usable addresses.
    slices: BTreeMap<String, (Vec<SocketAddr>, Arc<Object>)>,
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
        let known = self.slices.get(&name);
        let before = known.map_or(&[][..], |(addresses, _)| addresses);
        let lost = |is_ipv4: bool| {
            let of_family = |address: &&SocketAddr| address.is_ipv4() == is_ipv4;
            let others = self.slices.iter().filter(|(other, _)| **other != name);
            before.iter().any(|address| of_family(&address))
                && !usable.iter().any(|address| of_family(&address))
                && !others
                    .flat_map(|(_, (addresses, _))| addresses)
                    .any(|address| of_family(&address))
        };
        if lost(true) || lost(false) {
            self.held.insert(name, change);
            return Vec::new();
        }
        match &change {
            Change::Delete(_) => self.slices.remove(&name),
            Change::Apply { object, .. } => self.slices.insert(name, (usable, Arc::clone(object))),
        };
        let mut changes = vec![change];
        for (_, held) in std::mem::take(&mut self.held) {
            changes.extend(self.filter(held));
        }
        changes
    }

    /// After the first full list: the changes that keep families of slices from before in force, of
    /// which the list has no address.
    pub fn restore(&mut self, before: Vec<EndpointSlice>) -> Vec<Change> {
        let now = self.addresses();
        let mut changes = Vec::new();
        for slice in before {
            let usable = usable(&slice);
            let is_lost = |is_ipv4: bool| {
                let of_family = |address: &SocketAddr| address.is_ipv4() == is_ipv4;
                usable.iter().any(of_family) && !now.iter().any(of_family)
            };
            if !is_lost(true) && !is_lost(false) {
                continue;
            }
            let name = slice.metadata.name.clone().unwrap_or_default();
            let object = Arc::new(Object::EndpointSlice(Box::new(slice)));
            let apply = |object| Change::Apply {
                object,
                origin: ORIGIN,
            };
            // What the list says counts once it has an address.
            let known = self
                .slices
                .insert(name.clone(), (usable, Arc::clone(&object)));
            let listed = match known {
                Some((_, empty)) => apply(empty),
                None => Change::Delete(object.key()),
            };
            self.held.insert(name, listed);
            changes.push(apply(object));
        }
        changes
    }

    /// The API servers.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let slices = self.slices.values();
        slices
            .flat_map(|(addresses, _)| addresses)
            .copied()
            .collect()
    }

    /// The slices in force that have usable addresses.
    pub fn in_force(&self) -> impl Iterator<Item = &EndpointSlice> {
        let slices = self
            .slices
            .values()
            .filter(|(usable, _)| !usable.is_empty());
        slices.filter_map(|(_, object)| match &**object {
            Object::EndpointSlice(slice) => Some(&**slice),
            _ => None,
        })
    }

    /// The name and the usable addresses of a slice of `default/kubernetes`.
    fn about(&self, change: &Change) -> Option<(String, Vec<SocketAddr>)> {
        match change {
            Change::Apply { object, .. } => {
                let Object::EndpointSlice(slice) = &**object else {
                    return None;
                };
                let meta = &slice.metadata;
                let service = meta.labels.get(SERVICE_NAME_LABEL).map(String::as_str);
                let mine =
                    (meta.namespace.as_deref(), service) == (Some(SERVICE.0), Some(SERVICE.1));
                mine.then(|| (meta.name.clone().unwrap_or_default(), usable(slice)))
            }
            Change::Delete(key) => {
                let mine = key.kind == Kind::EndpointSlice
                    && key.namespace == SERVICE.0
                    && self.slices.contains_key(&key.name);
                mine.then(|| (key.name.clone(), Vec::new()))
            }
        }
    }
}

/// True for the Service itself, which the API server makes again when it is deleted.
pub fn is_kept(key: &ObjectKey) -> bool {
    key.kind == Kind::Service && (&*key.namespace, &*key.name) == SERVICE
}

/// The addresses of a slice that can be dialled.
pub fn usable(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let ports = || {
        slice
            .ports
            .iter()
            .filter_map(|port| u16::try_from(port.port?).ok())
    };
    let endpoints = slice.endpoints.iter();
    let ready = endpoints.filter(|endpoint| endpoint.is_ready());
    let addresses = ready.filter_map(|endpoint| endpoint.addresses.first()?.parse().ok());
    addresses
        .flat_map(|address| ports().map(move |port| SocketAddr::new(address, port)))
        .collect()
}
