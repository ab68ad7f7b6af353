//! The early program of uplinks (XDP): relays outside traffic to other nodes before the kernel has
//! made packet buffers of it. What it leaves alone goes to the tc programs, so a device that cannot
//! run it is served all the same.

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
};

use dataplane_common::abi::{XdpDevice, name, xdp_mode};

use super::{
    Dataplane, Error, Table,
    attach::link_info,
    cleanup::detach_pinned,
    pin::remove,
    sys::{self, Target, XdpMode},
};

/// The program's name, in the object and in pins.
pub const EARLY: &str = "from_net_xdp";

/// Which uplinks run the early program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpSetting {
    /// Those with hardware behind them whose driver runs it. Not veths: frames from another
    /// namespace may not have their checksums yet, and would leave without.
    #[default]
    Auto,
    /// All whose driver runs it.
    Native,
    /// All, run by the kernel.
    Generic,
    /// None.
    Off,
}

/// Whether an uplink runs the early program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Early {
    /// By its driver.
    Native,
    /// By the kernel.
    Generic,
    /// It does not; why, if somebody might want it to.
    Off(Option<String>),
}

impl fmt::Display for Early {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Early::Native => f.write_str("native"),
            Early::Generic => f.write_str("generic"),
            Early::Off(None) => f.write_str("off"),
            Early::Off(Some(reason)) => write!(f, "off: {reason}"),
        }
    }
}

/// The name of the link's pin on a device.
fn pin_of(ifindex: u32) -> String {
    format!("{EARLY}-{ifindex}")
}

fn device_of(pin: &str) -> Option<u32> {
    pin.strip_prefix(EARLY)?.strip_prefix('-')?.parse().ok()
}

impl Dataplane {
    /// Has an uplink, whose hardware address is `mac`, run the early program as the setting says; in
    /// place of a former one, if there is one of the same mode.
    ///
    /// # Errors
    ///
    /// A pin cannot be made or removed. That the device cannot run the program is an answer.
    pub fn attach_early(
        &self,
        ifindex: u32,
        name: &str,
        mac: [u8; 6],
        setting: XdpSetting,
    ) -> Result<Early, Error> {
        let mode = match setting {
            XdpSetting::Native => XdpMode::Native,
            XdpSetting::Generic => XdpMode::Generic,
            XdpSetting::Auto if sys::has_hardware(name) => XdpMode::Native,
            XdpSetting::Auto | XdpSetting::Off => {
                self.detach_early(ifindex)?;
                return Ok(Early::Off(None));
            }
        };
        if !self.programs.has(EARLY) {
            return Ok(Early::Off(Some(
                "the kernel refuses the program".to_owned(),
            )));
        }
        let devices = self.early_devices()?;
        let known = devices.get(&ifindex)?;
        let kept =
            known.is_some_and(|known| known.mode == mode.number()) && self.take_early(ifindex)?;
        if !kept {
            self.detach_early(ifindex)?;
            let link = match self.link_early(ifindex, mode) {
                Ok(link) => link,
                Err(error) => return Ok(Early::Off(Some(error.to_string()))),
            };
            self.keep(&pin_of(ifindex), link)?;
        }
        let device = XdpDevice {
            mode: mode.number(),
            mac,
            reserved: 0,
        };
        devices.put(&ifindex, &device)?;
        Ok(match mode {
            XdpMode::Native => Early::Native,
            XdpMode::Generic => Early::Generic,
        })
    }

    /// Takes the early program off a device.
    ///
    /// # Errors
    ///
    /// A pin cannot be removed, or the kernel refuses.
    pub(super) fn detach_early(&self, ifindex: u32) -> Result<(), Error> {
        self.early_devices()?.delete(&ifindex)?;
        let pin = pin_of(ifindex);
        self.held().remove(&pin);
        detach_pinned(&self.pins.link(&pin)).map(drop)
    }

    /// Puts this agent's early program into every link of one that is pinned, and drops links
    /// without device. Answers how many were dropped.
    pub(super) fn replace_early(&self) -> Result<usize, Error> {
        let mut dropped = 0;
        if !self.programs.has(EARLY) {
            return Ok(dropped);
        }
        for pin in self.pins.links()? {
            if let Some(ifindex) = device_of(&pin)
                && !self.take_early(ifindex)?
            {
                self.early_devices()?.delete(&ifindex)?;
                remove(&self.pins.link(&pin))?;
                dropped += 1;
            }
        }
        Ok(dropped)
    }

    /// Puts the program into the pinned link of a device; false if there is none.
    fn take_early(&self, ifindex: u32) -> Result<bool, Error> {
        let pin = pin_of(ifindex);
        let path = self.pins.link(&pin);
        if !path.exists() {
            return Ok(false);
        }
        let link = sys::obj_get(&path).map_err(|error| Error::file("opening", &path, error))?;
        let info = link_info(&link)?;
        if info.target != (Target::Xdp { ifindex }) {
            return Ok(false);
        }
        if info.program != self.programs.id(EARLY) {
            match sys::link_update(link.as_fd(), self.programs.fd(EARLY)) {
                Ok(()) => {}
                // The device went away meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => return Ok(false),
                Err(source) => {
                    return Err(Error::Attach {
                        program: EARLY,
                        target: format!("device {ifindex}"),
                        source,
                    });
                }
            }
        }
        self.held().insert(pin, link);
        Ok(true)
    }

    /// A new link; one of ours that has lost its pin makes room.
    fn link_early(&self, ifindex: u32, mode: XdpMode) -> io::Result<OwnedFd> {
        let link = || sys::link_xdp(self.programs.fd(EARLY), ifindex, mode);
        match link() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let mut id = 0;
                while let Some(next) = sys::next_link(id)? {
                    id = next;
                    let Some(other) = sys::link_by_id(id)? else {
                        continue;
                    };
                    let info = sys::link_info(other.as_fd())?;
                    if info.target == (Target::Xdp { ifindex }) && self.own.program(info.program) {
                        sys::link_detach(other.as_fd())?;
                    }
                }
                link()
            }
            result => result,
        }
    }

    fn early_devices(&self) -> Result<Table<u32, XdpDevice>, Error> {
        self.maps.table(name::XDP_DEVICES)
    }
}

impl XdpMode {
    /// As the map of devices has it.
    fn number(self) -> u32 {
        match self {
            XdpMode::Native => xdp_mode::NATIVE,
            XdpMode::Generic => xdp_mode::GENERIC,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_name_the_device() {
        assert_eq!(device_of(&pin_of(42)), Some(42));
        for other in ["from_net-42", EARLY, "from_net_xdp-x"] {
            assert_eq!(device_of(other), None, "{other}");
        }
    }
}
