//! Capacities of the maps, by the names that settings have for them.

use std::collections::BTreeMap;

use dataplane_common::abi::name;
use dataplane_model::capacity::Capacities;

use super::{Error, bad};

/// A setting's name, the maps it is for, and whether it must be a power of two.
type Setting = (&'static str, &'static [&'static str], bool);

const SETTINGS: [Setting; 17] = [
    ("services", &name::SERVICES, false),
    ("slots", &[name::SLOTS], false),
    ("backends", &name::BACKENDS, false),
    ("classes", &[name::CLASSES], false),
    ("affinity", &name::AFFINITY, false),
    ("sockRev", &name::SOCK_REV, false),
    ("conntrack", &name::CONNTRACK, false),
    ("fragments", &name::FRAGMENTS, false),
    ("identities", &name::IDENTITIES, false),
    ("cidrs", &name::CIDRS, false),
    ("sourceRanges", &name::SOURCE_RANGES, false),
    ("subjectsOverflow", &[name::SUBJECTS_OVERFLOW], false),
    ("rulesets", &[name::RULESETS], false),
    ("portBounds", &[name::PORT_BOUNDS], false),
    ("rows", &[name::ROWS], false),
    ("events", &[name::EVENTS], true),
    ("ids", &[name::IDS], false),
];

/// Checks capacities by the settings' names.
///
/// # Errors
///
/// A setting that does not exist, or a number that its maps cannot have.
pub fn checked(given: BTreeMap<String, u32>) -> Result<BTreeMap<String, u32>, Error> {
    for (name, &entries) in &given {
        check(name, entries)?;
    }
    Ok(given)
}

/// Capacities of flags like `conntrack=1000000`.
///
/// # Errors
///
/// A flag of another form.
pub fn from_flags(flags: &[String]) -> Result<BTreeMap<String, u32>, Error> {
    let one = |flag: &String| {
        flag.split_once('=')
            .and_then(|(name, entries)| {
                Some((name.trim().to_owned(), entries.trim().parse().ok()?))
            })
            .ok_or_else(|| {
                bad(
                    "mapCapacities",
                    format!("{flag:?}: write NAME=ENTRIES, as in conntrack=1000000"),
                )
            })
    };
    flags.iter().map(one).collect()
}

/// Capacities by the maps' names in the kernel, of those by the settings' names.
pub fn of_maps(given: &BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    let maps = SETTINGS.iter().filter_map(|(name, maps, _)| {
        let entries = *given.get(*name)?;
        Some(maps.iter().map(move |map| ((*map).to_owned(), entries)))
    });
    maps.flatten().collect()
}

fn check(name: &str, entries: u32) -> Result<(), Error> {
    let Some((.., power_of_two)) = SETTINGS.iter().find(|(known, ..)| *known == name) else {
        let known = SETTINGS.map(|(name, ..)| name).join(", ");
        return Err(bad(
            "mapCapacities",
            format!("{name:?} is not known: write one of {known}"),
        ));
    };
    if entries == 0 || (*power_of_two && !entries.is_power_of_two()) {
        let what = if *power_of_two {
            "a power of two"
        } else {
            "at least 1"
        };
        return Err(bad(
            "mapCapacities",
            format!("{name}: {entries} is not {what}"),
        ));
    }
    Ok(())
}

/// The model's view of the capacities that the maps have; `of` gives a map's capacity by its name,
/// where it is known.
pub fn model_capacities(of: impl Fn(&str) -> Option<u32>) -> Capacities {
    let default = Capacities::default();
    let get = |name: &str, default: u32| of(name).unwrap_or(default);
    // Of a pair of maps, what both of them hold.
    let pair = |names: [&str; 2], default: u32| get(names[0], default).min(get(names[1], default));
    Capacities {
        services: pair(name::SERVICES, default.services),
        slots: get(name::SLOTS, default.slots),
        backends: pair(name::BACKENDS, default.backends),
        classes: get(name::CLASSES, default.classes),
        identities: pair(name::IDENTITIES, default.identities),
        cidrs: pair(name::CIDRS, default.cidrs),
        source_ranges: pair(name::SOURCE_RANGES, default.source_ranges),
        subjects: get(name::SUBJECTS, default.subjects),
        subjects_overflow: get(name::SUBJECTS_OVERFLOW, default.subjects_overflow),
        rulesets: get(name::RULESETS, default.rulesets),
        port_bounds: get(name::PORT_BOUNDS, default.port_bounds),
        rows: get(name::ROWS, default.rows),
        ids: get(name::IDS, default.ids),
    }
}
