//! What is behind a device.

use std::{mem, net::UdpSocket, os::fd::AsRawFd};

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GDRVINFO: u32 = 3;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// What drivers say of devices that are on no bus: most, bridges, and those of user programs.
const NO_BUS: [&[u8]; 4] = [b"", b"N/A", b"tun", b"tap"];

/// True if there is hardware behind a device of this namespace (or what a virtual machine has for
/// it): one on a bus. Where it cannot be asked, it counts as none.
pub fn has_hardware(name: &str) -> bool {
    let Ok(socket) = UdpSocket::bind(("127.0.0.1", 0)) else {
        return false;
    };
    // SAFETY: both are plain data for which zeros are valid.
    let (mut info, mut request) =
        unsafe { (mem::zeroed::<DriverInfo>(), mem::zeroed::<libc::ifreq>()) };
    info.command = ETHTOOL_GDRVINFO;
    if name.len() >= request.ifr_name.len() {
        return false;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the kernel reads `request`, whose name ends with a zero, and writes into `info`, which
    // is as large as the command asks for.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    let bus = info.bus.split(|&byte| byte == 0).next().unwrap_or_default();
    status == 0 && !NO_BUS.contains(&bus)
}
