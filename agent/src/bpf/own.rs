//! Which programs in the kernel are ours.

use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use super::{
    Error, layout,
    pin::list,
    program::{Hook, SOCKET_HOOKS},
    sys::{RawMap, map_by_id, obj_get, program_by_id, program_info},
    xdp::EARLY,
};

/// How the agent knows its own programs: by the pinned maps that they use, of any schema version.
/// Where the pins are lost, by the names of program and maps together with the agent's network
/// namespace in the program's settings.
#[derive(Debug)]
pub struct Own {
    map_ids: BTreeSet<u32>,
    netns_cookie: u64,
}

impl Own {
    /// Reads the ids of all pinned maps.
    ///
    /// # Errors
    ///
    /// The pin directory cannot be read.
    pub fn new(bpffs: &Path, netns_cookie: u64) -> Result<Self, Error> {
        let mut map_ids = BTreeSet::new();
        for (_, version) in versions(bpffs)? {
            for (_, pin) in list(&version.join("maps"))? {
                let fd = obj_get(&pin).map_err(|error| Error::file("opening", &pin, error))?;
                let map = RawMap::new(fd, 1)
                    .map_err(|error| Error::file("asking for the id of", &pin, error))?;
                map_ids.insert(map.info().id);
            }
        }
        Ok(Self {
            map_ids,
            netns_cookie,
        })
    }

    /// True if the program is one of ours, of this or another version. One that is gone is not.
    pub fn program(&self, id: u32) -> bool {
        let Ok(Some(fd)) = program_by_id(id) else {
            return false;
        };
        let Ok(info) = program_info(fd.as_fd()) else {
            return false;
        };
        if info.maps.iter().any(|id| self.map_ids.contains(id)) {
            return true;
        }
        let maps: Vec<RawMap> = info.maps.iter().filter_map(|&id| open(id)).collect();
        let names: Vec<String> = maps.iter().map(|map| map.info().name()).collect();
        named_like_ours(&info.name, &names) && maps.iter().any(|map| self.holds_our_settings(map))
    }

    /// True if the map is a program's read-only data with our namespace's cookie among it.
    fn holds_our_settings(&self, map: &RawMap) -> bool {
        if !map.info().name().contains("rodata") || map.key_size() != 4 {
            return false;
        }
        let mut value = vec![0; map.value_size()];
        matches!(map.lookup(&[0; 4], &mut value), Ok(true))
            && value
                .chunks_exact(8)
                .any(|word| word == self.netns_cookie.to_ne_bytes())
    }
}

/// The schema versions that have pins.
pub(super) fn versions(bpffs: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let mut found = list(bpffs)?;
    found.retain(|(name, path)| {
        let number = name.strip_prefix('v').map(str::parse::<u32>);
        matches!(number, Some(Ok(_))) && path.is_dir()
    });
    Ok(found)
}

fn open(id: u32) -> Option<RawMap> {
    RawMap::new(map_by_id(id).ok()??, 1).ok()
}

/// The kernel cuts names to 15 bytes.
const NAME: usize = 15;

fn named_like_ours(program: &str, maps: &[String]) -> bool {
    let hooks = Hook::ALL.into_iter().map(Hook::program);
    let mut known = hooks
        .chain(SOCKET_HOOKS.into_iter().map(|(name, _)| name))
        .chain([EARLY]);
    let ours = layout::pinned();
    let matching = maps
        .iter()
        .filter(|name| ours.iter().any(|our| our[..our.len().min(NAME)] == **name));
    known.any(|name| name == program) && matching.count() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_alone_need_a_hook_and_our_maps() {
        let maps = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        assert!(named_like_ours(
            "from_pod",
            &maps(&["subjects", "ct4", "x"])
        ));
        assert!(!named_like_ours("from_pod", &maps(&["subjects", "x"])));
        assert!(!named_like_ours(
            "cil_from_pod",
            &maps(&["subjects", "ct4"])
        ));
    }
}
