//! The layouts of the maps: what the object asks for, what is pinned, and whether they agree.

use std::{collections::BTreeMap, path::Path};

use aya_obj::{EbpfSectionKind, Object};
use dataplane_common::abi::{self, IdKey, IdVal, capacity};

use super::{
    Error,
    sys::{MapInfo, kind},
};

/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;

/// Maps whose capacity is a setting. The programs know the sizes of the others.
pub fn sizable() -> Vec<&'static str> {
    use abi::name::*;
    let pairs = [
        SERVICES,
        BACKENDS,
        AFFINITY,
        SOCK_REV,
        CONNTRACK,
        FRAGMENTS,
        IDENTITIES,
        CIDRS,
        SOURCE_RANGES,
    ];
    let single = [
        SLOTS,
        CLASSES,
        SUBJECTS_OVERFLOW,
        RULESETS,
        PORT_BOUNDS,
        ROWS,
        EVENTS,
        IDS,
    ];
    pairs.into_iter().flatten().chain(single).collect()
}

/// All maps that are pinned.
pub fn pinned() -> Vec<&'static str> {
    use abi::name::*;
    let fixed = [
        SUBJECTS,
        EPOCH,
        LISTENERS,
        TOLD,
        EVENT_BUDGET,
        EVENT_COUNTS,
        DROPS,
        AUDITS,
        ERROR_BUDGETS,
        ERRORS_HELD,
        HALF_OPEN,
        XDP_DEVICES,
        XDP_FRAMES,
    ];
    sizable().into_iter().chain(fixed).collect()
}

/// The layout of each map to pin: the object's, with the capacities that are set.
///
/// # Errors
///
/// The object does not parse or lacks a map, or a capacity is set that cannot be.
pub fn wanted(
    object: &[u8],
    capacities: &BTreeMap<String, u32>,
) -> Result<BTreeMap<&'static str, MapInfo>, Error> {
    if object.is_empty() {
        return Err(Error::NoObject);
    }
    let parsed = Object::parse(object).map_err(|error| Error::BadObject(error.to_string()))?;
    let mut maps: BTreeMap<&str, MapInfo> = parsed
        .maps
        .iter()
        .filter(|(_, map)| map.section_kind() == EbpfSectionKind::Maps || is_btf(map))
        .map(|(name, map)| (name.as_str(), layout(map)))
        .collect();
    // Only userspace reads it, so the programs may not name it.
    maps.entry(abi::name::IDS).or_insert(MapInfo {
        kind: kind::HASH,
        key_size: size_of::<IdKey>() as u32,
        value_size: size_of::<IdVal>() as u32,
        max_entries: capacity::IDS,
        flags: NO_PREALLOC,
        ..MapInfo::default()
    });
    let sizable = sizable();
    if let Some(name) = capacities
        .keys()
        .find(|name| !sizable.contains(&name.as_str()))
    {
        return Err(Error::Capacity(name.clone()));
    }
    pinned()
        .into_iter()
        .map(|name| {
            let mut layout = *maps
                .get(name)
                .ok_or_else(|| Error::BadObject(format!("it has no map {name}")))?;
            if let Some(&entries) = capacities.get(name) {
                layout.max_entries = entries;
            }
            Ok((name, layout))
        })
        .collect()
}

fn is_btf(map: &aya_obj::Map) -> bool {
    map.section_kind() == EbpfSectionKind::BtfMaps
}

fn layout(map: &aya_obj::Map) -> MapInfo {
    MapInfo {
        kind: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        flags: map.map_flags(),
        ..MapInfo::default()
    }
}

/// A pinned map whose capacity is another than asked for; it keeps its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptCapacity {
    /// The map.
    pub map: String,
    /// Its capacity.
    pub has: u32,
    /// What was asked for.
    pub asked: u32,
}

/// Compares a pinned map with what is wanted.
///
/// # Errors
///
/// It cannot be used: its type, sizes or flags differ, or a capacity that the programs know does.
pub fn compare(
    name: &str,
    pin: &Path,
    found: &MapInfo,
    wanted: &MapInfo,
) -> Result<Option<KeptCapacity>, Error> {
    let shape = |info: &MapInfo| (info.kind, info.key_size, info.value_size, info.flags);
    let same_capacity = found.max_entries == wanted.max_entries;
    if shape(found) != shape(wanted) || (!same_capacity && !sizable().contains(&name)) {
        return Err(Error::Layout {
            path: pin.to_owned(),
            found: Box::new(*found),
            expected: Box::new(*wanted),
        });
    }
    Ok((!same_capacity).then(|| KeptCapacity {
        map: name.to_owned(),
        has: found.max_entries,
        asked: wanted.max_entries,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: MapInfo = MapInfo {
        kind: kind::HASH,
        id: 0,
        key_size: 16,
        value_size: 56,
        max_entries: 1_024,
        flags: 0,
        name: [0; 16],
    };

    fn check(name: &str, change: impl FnOnce(&mut MapInfo)) -> Result<Option<KeptCapacity>, Error> {
        let mut found = MapInfo { id: 7, ..WANTED };
        change(&mut found);
        compare(name, Path::new("/pins/ct4"), &found, &WANTED)
    }

    #[test]
    fn an_equal_layout_is_adopted() {
        assert_eq!(check("ct4", |_| {}).expect("same"), None);
    }

    #[test]
    fn any_other_shape_is_refused() {
        for change in [
            |found: &mut MapInfo| found.kind = kind::LRU_HASH,
            |found: &mut MapInfo| found.key_size = 8,
            |found: &mut MapInfo| found.value_size = 60,
            |found: &mut MapInfo| found.flags = 1,
        ] {
            let error = check("ct4", change).expect_err("another shape");
            let text = error.to_string();
            assert!(
                text.contains("/pins/ct4") && text.contains("sluice cleanup"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_capacity_is_kept_where_it_is_a_setting() {
        let kept = check("ct4", |found| found.max_entries = 99).expect("kept");
        assert_eq!(
            kept,
            Some(KeptCapacity {
                map: "ct4".into(),
                has: 99,
                asked: 1_024
            })
        );
        assert!(check("subjects", |found| found.max_entries = 99).is_err());
    }

    #[test]
    fn an_absent_object_says_what_to_do() {
        let error = wanted(&[], &BTreeMap::new()).expect_err("no object");
        assert!(error.to_string().contains("cargo xtask build"));
    }
}
