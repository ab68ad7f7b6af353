//! Attaching to the cgroup hierarchy.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use super::{
    Dataplane, Error,
    attach::link_info,
    cleanup::detach_pinned,
    pin::remove,
    program::SOCKET_HOOKS,
    sys::{self, Target},
};

impl Dataplane {
    /// Attaches the programs of sockets to the root of a cgroup v2 hierarchy, after those of
    /// others. They act for sockets of the agent's network namespace only.
    ///
    /// # Errors
    ///
    /// The directory is not a cgroup's, or the kernel refuses.
    pub fn attach_cgroup(&self, root: &Path) -> Result<(), Error> {
        let opened = File::open(root).map_err(|error| Error::file("opening", root, error))?;
        let id = opened
            .metadata()
            .map_err(|error| Error::file("examining", root, error))?
            .ino();
        for (program, attach_type) in SOCKET_HOOKS {
            let target = Target::Cgroup { id, attach_type };
            self.attach_socket_hook(program, &opened, target)
                .map_err(|source| Error::Attach {
                    program,
                    target: root.display().to_string(),
                    source,
                })?;
        }
        Ok(())
    }

    /// Detaches the programs of sockets. Sockets that were translated keep their peer.
    ///
    /// # Errors
    ///
    /// A pin cannot be removed.
    pub fn detach_cgroup(&self) -> Result<(), Error> {
        // In reverse: no new socket is translated once the answers' hooks go.
        for (program, _) in SOCKET_HOOKS.into_iter().rev() {
            detach_pinned(&self.pins.link(program))?;
            self.held().remove(program);
        }
        Ok(())
    }

    /// Puts this agent's programs into the pinned links; those whose cgroup is gone are dropped.
    pub(super) fn replace_socket_programs(&self) -> Result<(), Error> {
        for (program, _) in SOCKET_HOOKS {
            let path = self.pins.link(program);
            if !path.exists() {
                continue;
            }
            let link = sys::obj_get(&path).map_err(|error| Error::file("opening", &path, error))?;
            match sys::link_update(link.as_fd(), self.programs.fd(program)) {
                Ok(()) => {
                    self.held().insert(program.to_owned(), link);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
                    remove(&path)?;
                }
                Err(source) => {
                    return Err(Error::Attach {
                        program,
                        target: "its pinned link".to_owned(),
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    fn attach_socket_hook(
        &self,
        program: &'static str,
        cgroup: &File,
        target: Target,
    ) -> io::Result<()> {
        let held = match self.held().get(program) {
            Some(link) => link_info(link).map_err(io::Error::other)?.target == target,
            None => false,
        };
        if held {
            return Ok(());
        }
        // A pinned link to another cgroup; its program stays until the new one is in place.
        let former = self.held().remove(program);
        let link = match self.unpinned_socket_link(program, cgroup, target)? {
            Some(link) => {
                sys::link_update(link.as_fd(), self.programs.fd(program))?;
                link
            }
            None => {
                let Target::Cgroup { attach_type, .. } = target else {
                    return Err(io::ErrorKind::InvalidInput.into());
                };
                sys::link_cgroup(self.programs.fd(program), cgroup.as_fd(), attach_type)?
            }
        };
        remove(&self.pins.link(program)).map_err(io::Error::other)?;
        self.keep(program, link).map_err(io::Error::other)?;
        drop(former);
        Ok(())
    }

    /// A link with a program of ours at the cgroup's hook that has lost its pin.
    fn unpinned_socket_link(
        &self,
        program: &str,
        cgroup: &File,
        target: Target,
    ) -> io::Result<Option<OwnedFd>> {
        let Target::Cgroup { attach_type, .. } = target else {
            return Ok(None);
        };
        let attached = sys::query_cgroup(cgroup.as_fd(), attach_type)?;
        let ours: Vec<u32> = attached
            .into_iter()
            .filter(|&id| id != self.programs.id(program) && self.own.program(id))
            .collect();
        if ours.is_empty() {
            return Ok(None);
        }
        let mut id = 0;
        while let Some(next) = sys::next_link(id)? {
            id = next;
            let Some(link) = sys::link_by_id(id)? else {
                continue;
            };
            let info = sys::link_info(link.as_fd())?;
            if info.target == target && ours.contains(&info.program) {
                return Ok(Some(link));
            }
        }
        Ok(None)
    }
}
