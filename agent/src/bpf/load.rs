//! Opening the dataplane: pinned maps are reused, programs are loaded anew and take the place of
//! those that run.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Mutex,
};

use aya::{EbpfLoader, maps::MapData};
use dataplane_common::abi::{Config, name};

use super::{
    Error, Maps,
    attach::AttachMode,
    layout::{self, KeptCapacity},
    maps::bytes,
    own::Own,
    pin::PinDir,
    program::Programs,
    sys::{MapInfo, RawMap, obj_get, obj_pin},
};

/// What a dataplane is opened with.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Directory on a BPF file system that this agent's pins live under.
    pub bpffs: PathBuf,
    /// The programs' settings.
    pub config: Config,
    /// Capacities of maps (entries) by map name, where they are not the default.
    pub capacities: BTreeMap<String, u32>,
    /// How programs are attached to devices; `None`: the best that the kernel has.
    pub attach: Option<AttachMode>,
}

/// The programs and maps in the kernel. They outlive this value.
#[derive(Debug)]
pub struct Dataplane {
    pub(super) pins: PinDir,
    pub(super) maps: Maps,
    pub(super) programs: Programs,
    pub(super) mode: AttachMode,
    pub(super) own: Own,
    /// Held beside their pins, so that an unmounted bpffs detaches nothing while the agent lives.
    pub(super) links: Mutex<BTreeMap<String, OwnedFd>>,
    adopted: Adoption,
}

/// What a starting agent found in place.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Adoption {
    /// Nothing was pinned: the maps are new and empty.
    pub fresh: bool,
    /// Devices of pods whose programs were in place.
    pub pods: BTreeSet<u32>,
    /// Uplinks whose programs were in place.
    pub uplinks: BTreeSet<u32>,
    /// Links that were dropped, because their device is gone.
    pub dropped_links: usize,
    /// Maps that keep another capacity than was asked for.
    pub kept_capacities: Vec<KeptCapacity>,
}

impl Dataplane {
    /// Opens the dataplane: makes what is missing, adopts what is there, and replaces the programs
    /// of its links, without a moment in which a device has none.
    ///
    /// # Errors
    ///
    /// The directory is not on a bpffs, a pinned map has another layout, or the kernel refuses a
    /// map or program. What was running keeps running.
    pub fn load(object: &[u8], options: &LoadOptions) -> Result<Self, Error> {
        let wanted = layout::wanted(object, &options.capacities)?;
        let pins = PinDir::new(&options.bpffs);
        pins.create()?;
        let (found, kept_capacities) = open_pinned(&pins, &wanted)?;
        let fresh = found == 0;
        let mut ebpf = load_object(object, options, &pins, &wanted)?;
        let maps = open_maps(&pins, &wanted)?;
        let programs = Programs::load(&mut ebpf, &pins)?;
        let own = Own::new(&options.bpffs, options.config.netns_cookie)?;
        let mut dataplane = Self {
            pins,
            maps,
            programs,
            mode: options.attach.unwrap_or_else(AttachMode::detect),
            own,
            links: Mutex::default(),
            adopted: Adoption {
                fresh,
                kept_capacities,
                ..Adoption::default()
            },
        };
        let (pods, uplinks, dropped_links) = dataplane.replace_programs()?;
        dataplane.adopted.pods = pods;
        dataplane.adopted.uplinks = uplinks;
        dataplane.adopted.dropped_links = dropped_links;
        Ok(dataplane)
    }

    /// The maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// What was in place at the start.
    pub fn adopted(&self) -> &Adoption {
        &self.adopted
    }

    /// How programs are attached to devices.
    pub fn attach_mode(&self) -> AttachMode {
        self.mode
    }
}

/// True if maps of this version are pinned there.
pub fn is_pinned(bpffs: &Path) -> bool {
    PinDir::new(bpffs).map(name::SLOTS).exists()
}

/// Opens the maps of a running dataplane, to look at them.
///
/// # Errors
///
/// Nothing is pinned there, or a map is missing.
pub fn open(bpffs: &Path) -> Result<Maps, Error> {
    let pins = PinDir::new(bpffs);
    let mut maps = Maps::default();
    for name in layout::pinned() {
        maps.insert(name, open_pin(&pins, name)?)?;
    }
    Ok(maps)
}

/// Compares the maps that are pinned with the wanted layouts; says how many there are, and which
/// keep another capacity.
fn open_pinned(
    pins: &PinDir,
    wanted: &BTreeMap<&'static str, MapInfo>,
) -> Result<(usize, Vec<KeptCapacity>), Error> {
    let (mut count, mut kept) = (0, Vec::new());
    for (name, layout) in wanted {
        let pin = pins.map(name);
        if !pin.exists() {
            continue;
        }
        let fd = obj_get(&pin).map_err(|error| Error::file("opening", &pin, error))?;
        let found = RawMap::new(fd, 1)
            .map_err(|error| Error::file("asking for the layout of", &pin, error))?;
        kept.extend(layout::compare(name, &pin, found.info(), layout)?);
        count += 1;
    }
    Ok((count, kept))
}

fn load_object(
    object: &[u8],
    options: &LoadOptions,
    pins: &PinDir,
    wanted: &BTreeMap<&'static str, MapInfo>,
) -> Result<aya::Ebpf, Error> {
    let mut loader = EbpfLoader::new();
    loader.override_global("CONFIG", bytes(std::slice::from_ref(&options.config)), true);
    for (name, layout) in wanted {
        loader.map_pin_path(name, pins.map(name));
        loader.map_max_entries(name, layout.max_entries);
    }
    loader.load(object).map_err(|error| Error::Load {
        what: "the maps".to_owned(),
        reason: chain(&error),
    })
}

fn open_maps(pins: &PinDir, wanted: &BTreeMap<&'static str, MapInfo>) -> Result<Maps, Error> {
    let mut maps = Maps::default();
    for (name, layout) in wanted {
        if !pins.map(name).exists() {
            create_pinned(pins, name, layout)?;
        }
        maps.insert(name, open_pin(pins, name)?)?;
    }
    Ok(maps)
}

/// Makes a map that the programs do not name.
fn create_pinned(pins: &PinDir, name: &str, layout: &MapInfo) -> Result<(), Error> {
    let map = aya_obj::Map::new_from_params(
        layout.kind,
        layout.key_size,
        layout.value_size,
        layout.max_entries,
        layout.flags,
    );
    let map = MapData::create(map, name, None).map_err(|error| Error::Load {
        what: format!("map {name}"),
        reason: chain(&error),
    })?;
    let pin = pins.map(name);
    obj_pin(map.fd().as_fd(), &pin).map_err(|error| Error::file("pinning", pin, error))
}

fn open_pin(pins: &PinDir, name: &str) -> Result<OwnedFd, Error> {
    let pin = pins.map(name);
    obj_get(&pin).map_err(|error| Error::file("opening", pin, error))
}

/// An error with its causes, which aya leaves out of its messages.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
