//! Attaching to devices, and finding again what is attached.

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
    sync::{MutexGuard, PoisonError},
};

use dataplane_common::abi::{Subject, name, subject_flags, subject_state};

use super::{
    Dataplane, Error, Table,
    cleanup::detach_pinned,
    clsact,
    pin::remove,
    program::Hook,
    sys::{self, LinkInfo, TCX_INGRESS, Target},
};

/// How programs are attached to devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachMode {
    /// tcx links (kernel 6.6).
    Tcx,
    /// Filters of a clsact qdisc.
    Clsact,
}

impl AttachMode {
    /// The best that this kernel has.
    pub fn detect() -> Self {
        // The loopback device is always the first one.
        match sys::query_tcx(1, TCX_INGRESS) {
            Ok(_) => AttachMode::Tcx,
            Err(_) => AttachMode::Clsact,
        }
    }
}

/// Whether a device had our programs before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attached {
    /// It had none: they were attached.
    New,
    /// It had them: they were replaced by this agent's.
    Adopted,
}

/// What passes a pod's device until the pod is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstEntry {
    /// Everything, with Services translated.
    Services,
    /// The same, and the pod may have connections that are older than the programs.
    Late,
    /// Nothing.
    Closed,
}

impl Dataplane {
    /// Attaches to the host side of a pod's device: first its entry in `subjects`, which says what passes
    /// until the pod is known, then the programs. A device that has an entry keeps it.
    ///
    /// # Errors
    ///
    /// The device is gone, or the kernel refuses.
    pub fn attach_pod_device(
        &self,
        ifindex: u32,
        name: &str,
        first: FirstEntry,
    ) -> Result<Attached, Error> {
        self.open_subject(ifindex, first)?;
        let to = self.attach(Hook::ToPod, ifindex, name)?;
        let from = self.attach(Hook::FromPod, ifindex, name)?;
        self.detach_hooks([Hook::FromNet, Hook::ToNet], ifindex, name)?;
        self.detach_early(ifindex)?;
        Ok(both(to, from))
    }

    /// Attaches to an uplink.
    ///
    /// # Errors
    ///
    /// The device is gone, or the kernel refuses.
    pub fn attach_uplink(&self, ifindex: u32, name: &str) -> Result<Attached, Error> {
        let to = self.attach(Hook::ToNet, ifindex, name)?;
        let from = self.attach(Hook::FromNet, ifindex, name)?;
        self.detach_hooks([Hook::FromPod, Hook::ToPod], ifindex, name)?;
        Ok(both(to, from))
    }

    /// Detaches from a device that is no longer the agent's, or is gone, and removes its entry
    /// from `subjects`.
    ///
    /// # Errors
    ///
    /// A pin cannot be removed, or the kernel refuses.
    pub fn detach(&self, ifindex: u32, name: &str) -> Result<(), Error> {
        self.detach_hooks(Hook::ALL, ifindex, name)?;
        self.detach_early(ifindex)?;
        let (direct, overflow, place) = self.subjects(ifindex)?;
        if direct
            .get(&place)?
            .is_some_and(|subject| subject.ifindex == ifindex)
        {
            direct.put(&place, &Subject::default())?;
        }
        overflow.delete(&ifindex).map(drop)
    }

    /// True if the device's egress has programs of others. Where that cannot be asked, it counts as
    /// if there were some: packets then take the way on which they see them.
    pub fn has_foreign_egress(&self, ifindex: u32) -> bool {
        match sys::query_tcx(ifindex, Hook::ToPod.attach_type()) {
            Ok(attached) => attached
                .iter()
                .any(|entry| !self.own.program(entry.program)),
            Err(_) => self.mode == AttachMode::Tcx,
        }
    }

    /// Puts this agent's programs into every link that is pinned, and drops links without device.
    /// Answers the devices of pods, the uplinks, and how many links were dropped.
    pub(super) fn replace_programs(&self) -> Result<(BTreeSet<u32>, BTreeSet<u32>, usize), Error> {
        let (mut pods, mut uplinks, mut dropped) = (BTreeSet::new(), BTreeSet::new(), 0);
        for pin in self.pins.links()? {
            let Some((hook, ifindex)) = Hook::of_pin(&pin) else {
                continue;
            };
            if !self.take_pinned(hook, ifindex, &pin)? {
                remove(&self.pins.link(&pin))?;
                dropped += 1;
                continue;
            }
            match hook {
                Hook::FromPod => pods.insert(ifindex),
                Hook::FromNet => uplinks.insert(ifindex),
                Hook::ToPod | Hook::ToNet => continue,
            };
        }
        dropped += self.replace_early()?;
        self.replace_socket_programs()?;
        Ok((pods, uplinks, dropped))
    }

    fn attach(&self, hook: Hook, ifindex: u32, name: &str) -> Result<Attached, Error> {
        if self.mode == AttachMode::Clsact {
            let program = self.pins.program(hook.program());
            return clsact::attach(hook, &program, name)
                .map_err(|source| attach_error(hook, name, source));
        }
        let pin = hook.pin(ifindex);
        let mut adopted = self.take_pinned(hook, ifindex, &pin)?;
        if !adopted {
            remove(&self.pins.link(&pin))?;
        }
        for link in self.unpinned(hook, ifindex, name)? {
            // One that lost its pin, or has the device's former role, is taken over; any further
            // one would do the work twice.
            if adopted {
                sys::link_detach(link.as_fd())
                    .map_err(|source| attach_error(hook, name, source))?;
            } else {
                self.replace(hook, &link, name)?;
                self.keep(&pin, link)?;
                adopted = true;
            }
        }
        if adopted {
            return Ok(Attached::Adopted);
        }
        let program = self.programs.fd(hook.program());
        let link = sys::link_tcx(program, ifindex, hook.attach_type())
            .map_err(|source| attach_error(hook, name, source))?;
        self.keep(&pin, link)?;
        Ok(Attached::New)
    }

    /// Puts the program into a pinned link; false if there is none, or it is not on the device.
    fn take_pinned(&self, hook: Hook, ifindex: u32, pin: &str) -> Result<bool, Error> {
        let path = self.pins.link(pin);
        if !path.exists() {
            return Ok(false);
        }
        let link = sys::obj_get(&path).map_err(|error| Error::file("opening", &path, error))?;
        let info = link_info(&link)?;
        let expected = Target::Tcx {
            ifindex,
            attach_type: hook.attach_type(),
        };
        if info.target != expected {
            return Ok(false);
        }
        if info.program != self.programs.id(hook.program()) {
            match sys::link_update(link.as_fd(), self.programs.fd(hook.program())) {
                Ok(()) => {}
                // The device went away meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => return Ok(false),
                Err(source) => {
                    return Err(attach_error(hook, &format!("device {ifindex}"), source));
                }
            }
        }
        self.held().insert(pin.to_owned(), link);
        Ok(true)
    }

    /// Links with our programs on the hook that are not the pinned one.
    fn unpinned(&self, hook: Hook, ifindex: u32, name: &str) -> Result<Vec<OwnedFd>, Error> {
        let pinned = match self.held().get(&hook.pin(ifindex)) {
            Some(link) => Some(link_info(link)?.id),
            None => None,
        };
        let attached = sys::query_tcx(ifindex, hook.attach_type())
            .map_err(|source| attach_error(hook, name, source))?;
        let mut links = Vec::new();
        for entry in attached {
            if entry.link == 0 || Some(entry.link) == pinned || !self.own.program(entry.program) {
                continue;
            }
            let link =
                sys::link_by_id(entry.link).map_err(|source| attach_error(hook, name, source))?;
            links.extend(link);
        }
        Ok(links)
    }

    fn replace(&self, hook: Hook, link: &OwnedFd, name: &str) -> Result<(), Error> {
        sys::link_update(link.as_fd(), self.programs.fd(hook.program()))
            .map_err(|source| attach_error(hook, name, source))
    }

    /// Pins a link and holds it.
    pub(super) fn keep(&self, pin: &str, link: OwnedFd) -> Result<(), Error> {
        let path = self.pins.link(pin);
        sys::obj_pin(link.as_fd(), &path).map_err(|error| Error::file("pinning", path, error))?;
        self.held().insert(pin.to_owned(), link);
        Ok(())
    }

    fn detach_hooks<const N: usize>(
        &self,
        hooks: [Hook; N],
        ifindex: u32,
        name: &str,
    ) -> Result<(), Error> {
        for hook in hooks {
            let pin = hook.pin(ifindex);
            let former = self.held().remove(&pin);
            if self.is_held_elsewhere(former.as_ref())? {
                remove(&self.pins.link(&pin))?;
            } else {
                detach_pinned(&self.pins.link(&pin))?;
            }
            if self.mode == AttachMode::Clsact {
                clsact::detach(hook, name).map_err(|source| attach_error(hook, name, source))?;
            }
        }
        Ok(())
    }

    /// True if the link serves another hook now: a device that changes its role keeps its links,
    /// with other programs in them.
    fn is_held_elsewhere(&self, link: Option<&OwnedFd>) -> Result<bool, Error> {
        let Some(link) = link else {
            return Ok(false);
        };
        let id = link_info(link)?.id;
        for other in self.held().values() {
            if link_info(other)?.id == id {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes a first entry for a pod's device, if there is none.
    fn open_subject(&self, ifindex: u32, first: FirstEntry) -> Result<(), Error> {
        let (direct, overflow, place) = self.subjects(ifindex)?;
        let entry = Subject {
            ifindex,
            state: match first {
                FirstEntry::Closed => subject_state::CLOSED,
                FirstEntry::Services | FirstEntry::Late => subject_state::SERVICES,
            },
            flags: match first {
                FirstEntry::Late => subject_flags::LATE,
                FirstEntry::Services | FirstEntry::Closed => 0,
            },
            ..Subject::default()
        };
        match direct.get(&place)? {
            Some(subject) if subject.ifindex == ifindex => Ok(()),
            Some(subject) if subject.ifindex == 0 => direct.put(&place, &entry),
            _ if overflow.get(&ifindex)?.is_some() => Ok(()),
            _ => overflow.put(&ifindex, &entry),
        }
    }

    fn subjects(&self, ifindex: u32) -> Result<(Subjects, Subjects, u32), Error> {
        let direct: Subjects = self.maps.table(name::SUBJECTS)?;
        let overflow = self.maps.table(name::SUBJECTS_OVERFLOW)?;
        let place = ifindex & (direct.capacity() - 1);
        Ok((direct, overflow, place))
    }

    pub(super) fn held(&self) -> MutexGuard<'_, std::collections::BTreeMap<String, OwnedFd>> {
        // The map is whole between any two of its operations.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Subjects = Table<u32, Subject>;

fn both(first: Attached, second: Attached) -> Attached {
    match (first, second) {
        (Attached::Adopted, Attached::Adopted) => Attached::Adopted,
        (Attached::New, _) | (_, Attached::New) => Attached::New,
    }
}

pub(super) fn link_info(link: &OwnedFd) -> Result<LinkInfo, Error> {
    sys::link_info(link.as_fd()).map_err(|source| Error::Kernel {
        what: "asking for a link's target",
        source,
    })
}

fn attach_error(hook: Hook, name: &str, source: std::io::Error) -> Error {
    Error::Attach {
        program: hook.program(),
        target: name.to_owned(),
        source,
    }
}
