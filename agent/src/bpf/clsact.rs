//! Attaching where the kernel has no tcx: a filter of our own priority and handle on a clsact
//! qdisc. The kernel replaces a filter of the same priority and handle in place.

use std::{io, mem, path::Path};

use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact},
};

use super::{Attached, program::Hook, sys::TCX_INGRESS};

/// The first priority, so that our filter runs before others.
const PRIORITY: u16 = 1;
/// Attaches a pinned program to a device, in place of a former one.
pub(super) fn attach(hook: Hook, program: &Path, device: &str) -> io::Result<Attached> {
    match qdisc_add_clsact(device) {
        Ok(()) => {}
        Err(error) if is_there(&error) => {}
        Err(error) => return Err(io::Error::other(error)),
    }
    let mut program = SchedClassifier::from_pin(program).map_err(io::Error::other)?;
    let former =
        SchedClassifierLink::attached(device, attach_type(hook), PRIORITY, handle(hook), None)?;
    let (link, attached) = match program.attach_to_link(former) {
        Ok(link) => (link, Attached::Adopted),
        Err(_) => {
            let options = TcAttachOptions::Netlink(NlOptions {
                priority: PRIORITY,
                handle: handle(hook),
                classid: None,
            });
            let link = program
                .attach_with_options(device, attach_type(hook), options)
                .map_err(io::Error::other)?;
            (link, Attached::New)
        }
    };
    let link = program.take_link(link).map_err(io::Error::other)?;
    // Dropping it would detach the filter, which is to outlive the agent.
    mem::forget(link);
    Ok(attached)
}

/// Removes our filter from a device, if both are there.
pub(super) fn detach(hook: Hook, device: &str) -> io::Result<()> {
    use aya::programs::links::Link;
    let Ok(link) =
        SchedClassifierLink::attached(device, attach_type(hook), PRIORITY, handle(hook), None)
    else {
        return Ok(());
    };
    // Without filter there is nothing to remove.
    let _ = link.detach();
    Ok(())
}

/// A handle that no other filter of that priority is likely to have. A pod's and an uplink's
/// programs have different ones: a device that changes its role has both for a moment.
fn handle(hook: Hook) -> TcHandle {
    match hook {
        Hook::FromPod | Hook::ToPod => TcHandle::new(0, 0x51c3),
        Hook::FromNet | Hook::ToNet => TcHandle::new(0, 0x51c4),
    }
}

fn attach_type(hook: Hook) -> TcAttachType {
    if hook.attach_type() == TCX_INGRESS {
        TcAttachType::Ingress
    } else {
        TcAttachType::Egress
    }
}

fn is_there(error: &TcError) -> bool {
    match error {
        TcError::AlreadyAttached => true,
        TcError::NetlinkError(error) => error.raw_os_error() == Some(libc::EEXIST),
        _ => false,
    }
}
