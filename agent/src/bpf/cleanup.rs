//! Removing every trace.

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use super::{
    Error, clsact,
    own::versions,
    pin::{check_bpffs, list, remove},
    program::Hook,
    sys,
};

/// What a cleanup removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CleanupReport {
    /// Links, each with its program.
    pub links: usize,
    /// Pinned programs.
    pub programs: usize,
    /// Maps, with what was in them.
    pub maps: usize,
}

/// Detaches the programs and removes programs, maps and directories of every schema version. What
/// belongs to others stays. A directory that does not exist is clean.
///
/// # Errors
///
/// The directory is not on a bpffs, or something in it cannot be removed.
pub fn cleanup(bpffs: &Path) -> Result<CleanupReport, Error> {
    let mut report = CleanupReport::default();
    if !bpffs.exists() {
        return Ok(report);
    }
    check_bpffs(bpffs)?;
    for (_, version) in versions(bpffs)? {
        remove_version(&version, &mut report)?;
    }
    // It stays if something of others is in it, or if it is where the bpffs is mounted.
    match fs::remove_dir(bpffs) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
            ) =>
        {
            Err(Error::file("removing", bpffs, error))
        }
        _ => Ok(report),
    }
}

fn remove_version(version: &Path, report: &mut CleanupReport) -> Result<(), Error> {
    let part = |name: &str| -> Result<(PathBuf, Vec<(String, PathBuf)>), Error> {
        let directory = version.join(name);
        let pins = list(&directory)?;
        Ok((directory, pins))
    };
    let (links, pins) = part("links")?;
    for (_, pin) in pins {
        report.links += usize::from(detach_pinned(&pin)?);
    }
    let (programs, pins) = part("progs")?;
    detach_filters()?;
    for (_, pin) in pins {
        report.programs += usize::from(remove(&pin)?);
    }
    let (maps, pins) = part("maps")?;
    for (_, pin) in pins {
        report.maps += usize::from(remove(&pin)?);
    }
    for directory in [&links, &programs, &maps] {
        remove_directory(directory)?;
    }
    remove_directory(version)
}

/// Detaches a pinned link, whoever else holds it, and removes the pin; false if there is none.
/// Removing the pin alone would detach at some later time.
pub(super) fn detach_pinned(pin: &Path) -> Result<bool, Error> {
    if !pin.exists() {
        return Ok(false);
    }
    let link = sys::obj_get(pin).map_err(|error| Error::file("opening", pin, error))?;
    match sys::link_detach(link.as_fd()) {
        // Its device is gone, or this kind cannot be: removing the pin is all there is to do.
        Err(error)
            if !matches!(
                error.raw_os_error(),
                Some(libc::ENOLINK | libc::EOPNOTSUPP | libc::EINVAL)
            ) =>
        {
            Err(Error::file("detaching", pin, error))
        }
        _ => remove(pin),
    }
}

/// Filters have no pins: they are found on the devices of this namespace themselves.
fn detach_filters() -> Result<(), Error> {
    let devices = nix::net::if_::if_nameindex().map_err(|error| Error::Kernel {
        what: "listing devices",
        source: error.into(),
    })?;
    for device in &devices {
        let device = device.name().to_string_lossy();
        for hook in Hook::ALL {
            clsact::detach(hook, &device).map_err(|source| Error::Attach {
                program: hook.program(),
                target: device.clone().into_owned(),
                source,
            })?;
        }
    }
    Ok(())
}

fn remove_directory(directory: &Path) -> Result<(), Error> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("removing", directory, error))
        }
        _ => Ok(()),
    }
}
