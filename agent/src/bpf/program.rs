//! The kernel programs: names, hooks, and loading.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic::resume_unwind,
    thread,
};

use aya::{
    Ebpf,
    programs::{CgroupSockAddr, Program, ProgramError, SchedClassifier, Xdp},
};

use super::{
    Error,
    pin::{PinDir, remove},
    sys::{TCX_EGRESS, TCX_INGRESS, obj_pin, program_info},
    xdp::EARLY,
};

/// The hooks of devices.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hook {
    /// What a pod sends.
    FromPod,
    /// What reaches a pod through the host's stack.
    ToPod,
    /// What comes in by an uplink.
    FromNet,
    /// What goes out by an uplink.
    ToNet,
}

impl Hook {
    /// All hooks of devices.
    pub const ALL: [Hook; 4] = [Hook::FromPod, Hook::ToPod, Hook::FromNet, Hook::ToNet];

    /// The program's name, in the object and in pins.
    pub fn program(self) -> &'static str {
        match self {
            Hook::FromPod => "from_pod",
            Hook::ToPod => "to_pod",
            Hook::FromNet => "from_net",
            Hook::ToNet => "to_net",
        }
    }

    /// Which side of a device it is on.
    pub fn attach_type(self) -> u32 {
        match self {
            Hook::FromPod | Hook::FromNet => TCX_INGRESS,
            Hook::ToPod | Hook::ToNet => TCX_EGRESS,
        }
    }

    /// The name of its link's pin on a device.
    pub fn pin(self, ifindex: u32) -> String {
        format!("{}-{ifindex}", self.program())
    }

    /// The hook and device that a pin's name says.
    pub fn of_pin(name: &str) -> Option<(Hook, u32)> {
        let (program, ifindex) = name.split_once('-')?;
        let hook = Hook::ALL
            .into_iter()
            .find(|hook| hook.program() == program)?;
        Some((hook, ifindex.parse().ok()?))
    }
}

/// The hooks of sockets: program and `enum bpf_attach_type`. Those that translate answers come
/// first, so that no socket is translated whose answers would not be.
pub const SOCKET_HOOKS: [(&str, u32); 8] = [
    ("recvmsg4", 19),
    ("recvmsg6", 20),
    ("getpeername4", 29),
    ("getpeername6", 30),
    ("connect4", 10),
    ("connect6", 11),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
];

/// The loaded programs.
#[derive(Debug)]
pub struct Programs {
    by_name: BTreeMap<&'static str, (OwnedFd, u32)>,
}

impl Programs {
    /// Verifies and pins every program of the object.
    ///
    /// # Errors
    ///
    /// One is missing, or the kernel refuses it.
    pub fn load(ebpf: &mut Ebpf, pins: &PinDir) -> Result<Self, Error> {
        let mut by_name = BTreeMap::new();
        for (name, fd) in verify(ebpf)? {
            let id = program_info(fd.as_fd())
                .map_err(|source| Error::Kernel {
                    what: "asking for a program's id",
                    source,
                })?
                .id;
            by_name.insert(name, (fd, id));
        }
        let programs = Self { by_name };
        programs.pin(pins)?;
        Ok(programs)
    }

    /// A program's descriptor.
    pub fn fd(&self, name: &str) -> BorrowedFd<'_> {
        self.by_name[name].0.as_fd()
    }

    /// True if the kernel has taken a program.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// A program's id.
    pub fn id(&self, name: &str) -> u32 {
        self.by_name[name].1
    }

    fn pin(&self, pins: &PinDir) -> Result<(), Error> {
        for (name, (fd, _)) in &self.by_name {
            let path = pins.program(name);
            remove(&path)?;
            obj_pin(fd.as_fd(), &path).map_err(|error| Error::file("pinning", path, error))?;
        }
        Ok(())
    }
}

/// Has the kernel verify all programs at once: it takes most of the time of a start.
fn verify(ebpf: &mut Ebpf) -> Result<Vec<(&'static str, OwnedFd)>, Error> {
    let sockets = SOCKET_HOOKS.into_iter().map(|(name, _)| name);
    let names: Vec<&'static str> = Hook::ALL
        .into_iter()
        .map(Hook::program)
        .chain(sockets)
        .chain([EARLY])
        .collect();
    let mut programs: BTreeMap<String, &mut Program> = ebpf
        .programs_mut()
        .map(|(name, program)| (name.to_owned(), program))
        .collect();
    let mut work = Vec::new();
    for name in names {
        let program = programs
            .remove(name)
            .ok_or_else(|| Error::BadObject(format!("it has no program {name}")))?;
        work.push((name, program));
    }
    let loaded = thread::scope(|scope| {
        let threads: Vec<_> = work
            .into_iter()
            .map(|(name, program)| (name, scope.spawn(move || load(program))))
            .collect();
        let joined = threads.into_iter().map(|(name, thread)| {
            let result = thread.join();
            (name, result.unwrap_or_else(|panic| resume_unwind(panic)))
        });
        joined.collect::<Vec<_>>()
    });
    let failed = |name, error: &ProgramError| Error::Load {
        what: format!("program {name}"),
        reason: short(error),
    };
    loaded
        .into_iter()
        // Without it the tc programs do its work.
        .filter(|(name, result)| *name != EARLY || result.is_ok())
        .map(|(name, result)| match result {
            Ok(fd) => Ok((name, fd)),
            Err(error) => Err(failed(name, &error)),
        })
        .collect()
}

fn load(program: &mut Program) -> Result<OwnedFd, ProgramError> {
    let fd = match program {
        Program::SchedClassifier(program) => {
            let program: &mut SchedClassifier = program;
            program.load()?;
            program.fd()?
        }
        Program::CgroupSockAddr(program) => {
            let program: &mut CgroupSockAddr = program;
            program.load()?;
            program.fd()?
        }
        Program::Xdp(program) => {
            let program: &mut Xdp = program;
            program.load()?;
            program.fd()?
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    };
    Ok(fd.as_fd().try_clone_to_owned()?)
}

/// The end of the verifier's log says what is wrong; all of it would hide that.
fn short(error: &ProgramError) -> String {
    const LINES: usize = 30;
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= LINES {
        return text;
    }
    let end = lines[lines.len() - LINES..].join("\n");
    format!("{} [...]\n{end}", lines[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_name_hook_and_device() {
        for hook in Hook::ALL {
            assert_eq!(Hook::of_pin(&hook.pin(42)), Some((hook, 42)));
        }
        assert_eq!(Hook::of_pin("connect4"), None);
        assert_eq!(Hook::of_pin("from_pod-x"), None);
    }
}
