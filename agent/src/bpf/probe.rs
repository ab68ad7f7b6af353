//! What this kernel is like, found by asking it.

use std::{
    io,
    os::fd::AsFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{Error, sys};

/// Tick rates that kernels for amd64 and arm64 are built with (`kernel/Kconfig.hz`).
const RATES: [u32; 4] = [100, 250, 300, 1000];

/// Jiffies per second of the running kernel.
///
/// # Errors
///
/// The kernel refuses BPF programs, or its clock fits no known rate.
pub fn kernel_hz() -> Result<u32, Error> {
    let failed = |source| Error::Kernel {
        what: "finding the kernel's tick rate",
        source,
    };
    let clock = Jiffies::new().map_err(failed)?;
    let jiffies = clock.now().map_err(failed)?;
    if let Some(hz) = rate_since_boot(jiffies, uptime()) {
        return Ok(hz);
    }
    measure(&clock)
        .map_err(failed)?
        .ok_or_else(|| failed(io::Error::other("the clock fits no known rate")))
}

/// The kernel's `jiffies64`.
#[derive(Debug)]
pub struct Jiffies {
    low: std::os::fd::OwnedFd,
    high: std::os::fd::OwnedFd,
}

impl Jiffies {
    /// Loads the programs that read it.
    ///
    /// # Errors
    ///
    /// The kernel refuses BPF programs.
    pub fn new() -> io::Result<Self> {
        const HIGH_HALF: u64 = 0x77 | 32 << 32;
        Ok(Self {
            low: sys::load_classifier(&[CALL | 118 << 32, EXIT])?,
            high: sys::load_classifier(&[CALL | 118 << 32, HIGH_HALF, EXIT])?,
        })
    }

    /// The low 32 bits now: the clock of conntrack entries.
    ///
    /// # Errors
    ///
    /// The kernel refuses to run the program.
    pub fn now_low(&self) -> io::Result<u32> {
        sys::test_run(self.low.as_fd(), &[0; 64])
    }

    fn now(&self) -> io::Result<u64> {
        loop {
            let high = sys::test_run(self.high.as_fd(), &[0; 64])?;
            let low = self.now_low()?;
            // Both halves are of one time unless the low one has just wrapped.
            if sys::test_run(self.high.as_fd(), &[0; 64])? == high {
                return Ok(u64::from(high) << 32 | u64::from(low));
            }
        }
    }
}

/// True if `bpf_l4_csum_replace` knows `BPF_F_IPV6`.
///
/// # Errors
///
/// The kernel refuses BPF programs.
pub fn knows_csum_ipv6() -> Result<bool, Error> {
    // r2 = 20; r3 = 0; r4 = 0; r5 = BPF_F_PSEUDO_HDR | BPF_F_IPV6; call 11; exit. r1 is the packet.
    let program = [
        mov(2, 20),
        mov(3, 0),
        mov(4, 0),
        mov(5, 0x10 | 0x80),
        CALL | 11 << 32,
        EXIT,
    ];
    let answer = sys::load_classifier(&program)
        .and_then(|program| sys::test_run(program.as_fd(), &[0; 64]))
        .map_err(|source| Error::Kernel {
            what: "asking for BPF_F_IPV6",
            source,
        })?;
    Ok(answer as i32 >= 0)
}

/// The cookie of this thread's network namespace.
///
/// # Errors
///
/// The kernel is older than 5.14.
pub fn netns_cookie() -> Result<u64, Error> {
    sys::netns_cookie().map_err(|source| Error::Kernel {
        what: "asking for the network namespace's cookie (kernel 5.14)",
        source,
    })
}

/// The root of the cgroup v2 hierarchy, from this process's mounts.
///
/// # Errors
///
/// None is mounted.
pub fn find_cgroup_root() -> Result<PathBuf, Error> {
    let path = "/proc/self/mounts";
    let mounts =
        std::fs::read_to_string(path).map_err(|error| Error::file("reading", path, error))?;
    cgroup_root_of(&mounts).ok_or(Error::NoCgroup)
}

fn cgroup_root_of(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, target, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(target.replace("\\040", " ")))
    })
}

const CALL: u64 = 0x85;
const EXIT: u64 = 0x95;

/// `r = value`.
const fn mov(register: u64, value: u64) -> u64 {
    0xb7 | register << 8 | value << 32
}

fn uptime() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a live timespec; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The rate at which jiffies, which begin 300 seconds before they wrap 32 bits, have reached
/// `jiffies` after `uptime`; `None` if two rates fit nearly as well, as around 300 seconds.
fn rate_since_boot(jiffies: u64, uptime: Duration) -> Option<u32> {
    // jiffies = 2^32 - 300 hz + uptime hz. On 32-bit words the first term wraps; it is the same.
    let ticks = jiffies as i128 - (1 << 32);
    let seconds = uptime.as_secs_f64() - 300.0;
    nearest(|hz| (ticks as f64 - seconds * f64::from(hz)).abs())
}

/// Counts ticks for a while, longer if they come unevenly, as in a guest that is not always run.
fn measure(clock: &Jiffies) -> io::Result<Option<u32>> {
    let (from, begin) = (clock.now()?, Instant::now());
    for wait in [0.5, 1.0, 4.0] {
        std::thread::sleep(Duration::from_secs_f64(wait));
        let ticks = clock.now()? - from;
        let seconds = begin.elapsed().as_secs_f64();
        let found = nearest(|hz| (ticks as f64 - seconds * f64::from(hz)).abs());
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The rate with the smallest error, if the next one's is clearly larger.
fn nearest(error_of: impl Fn(u32) -> f64) -> Option<u32> {
    let mut errors: Vec<_> = RATES.iter().map(|&hz| (error_of(hz), hz)).collect();
    errors.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (best, hz) = errors[0];
    let (second, _) = errors[1];
    (second > 4.0 * (best + 1.0)).then_some(hz)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jiffies(hz: u64, uptime: f64) -> u64 {
        ((1u64 << 32) - 300 * hz) + (uptime * hz as f64) as u64
    }

    #[test]
    fn every_rate_is_found_at_any_uptime() {
        for hz in [100, 250, 300, 1000] {
            for uptime in [2.0, 150.0, 290.0, 310.0, 4_000.0, 1e6, 1e8] {
                let found = rate_since_boot(jiffies(hz, uptime), Duration::from_secs_f64(uptime));
                assert_eq!(found, Some(hz as u32), "{hz} Hz after {uptime} s");
            }
        }
    }

    #[test]
    fn ticks_that_began_late_are_forgiven() {
        for late in [0.5, 3.0] {
            let found = rate_since_boot(jiffies(250, 8.0 - late), Duration::from_secs(8));
            assert_eq!(found, Some(250));
        }
    }

    #[test]
    fn a_slewed_clock_is_forgiven() {
        // 500 ppm, the most that a clock is slewed by, for 100 days.
        let uptime = 8_640_000.0;
        for hz in [100, 250, 1000] {
            let found = rate_since_boot(
                jiffies(hz, uptime),
                Duration::from_secs_f64(uptime * 1.0005),
            );
            assert_eq!(found, Some(hz as u32));
        }
    }

    #[test]
    fn around_the_wrap_nothing_is_guessed() {
        let found = rate_since_boot(jiffies(250, 300.0), Duration::from_secs(300));
        assert_eq!(found, None);
    }

    #[test]
    fn the_cgroup_root_is_found_among_mounts() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            cgroup_root_of(mounts),
            Some("/sys/fs/cgroup/unified".into())
        );
        assert_eq!(cgroup_root_of("tmpfs / tmpfs rw 0 0\n"), None);
    }
}
