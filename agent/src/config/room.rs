//! Capacities for what a cluster has, where the defaults would not hold it.

use std::collections::BTreeMap;

use dataplane_model::capacity::Capacities;

use crate::source::api::Census;

/// Room that is made for each thing there is, in percent: for what comes later, and for what is old and
/// new at once while it changes.
const ROOM: u64 = 150;

/// Adds capacities by the settings' names to those that are asked for.
pub fn for_cluster(given: &BTreeMap<String, u32>, census: &Census) -> BTreeMap<String, u32> {
    let default = Capacities::default();
    // Each address has a frontend for each port and one for all others, and serves two scopes.
    let frontends = (census.ports + census.services) * 2;
    let numbers = census.ports * 3 + census.services;
    let mut all = given.clone();
    for (name, needed, default) in [
        ("services", frontends, default.services),
        ("backends", census.endpoints, default.backends),
        ("slots", census.endpoints, default.slots),
        ("ids", numbers, default.ids),
    ] {
        let room = u32::try_from(needed * ROOM / 100).unwrap_or(u32::MAX);
        if room > default {
            all.entry(name.to_owned()).or_insert(room);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_what_fits() {
        let census = Census {
            services: 10_000,
            ports: 10_000,
            endpoints: 100_000,
        };
        assert_eq!(for_cluster(&BTreeMap::new(), &census), BTreeMap::new());
    }

    #[test]
    fn a_large_cluster_gets_room_unless_it_is_set() {
        let census = Census {
            services: 50_000,
            ports: 50_000,
            endpoints: 500_000,
        };
        let given = [("slots".to_owned(), 7)].into();
        let all = for_cluster(&given, &census);
        let expected = [("backends", 750_000), ("services", 300_000), ("slots", 7)];
        let expected = expected.map(|(name, entries)| (name.to_owned(), entries));
        assert_eq!(all, expected.into());
    }
}
