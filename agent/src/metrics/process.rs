//! The agent's own process, by the names that all exporters use.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Ticks per second of what Linux tells user space.
const USER_HZ: f64 = 100.0;

type Number = Gauge<f64, AtomicU64>;

/// Metrics of the process.
#[derive(Debug, Default)]
pub(super) struct Process {
    resident: Gauge,
    virtual_memory: Gauge,
    cpu: Counter<f64, AtomicU64>,
    started: Number,
    open_files: Gauge,
}

impl Process {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let process = Self::default();
        let Self {
            resident,
            virtual_memory,
            cpu,
            started,
            open_files,
        } = &process;
        registry.register(
            "process_resident_memory_bytes",
            "Memory in use",
            resident.clone(),
        );
        registry.register(
            "process_virtual_memory_bytes",
            "Memory mapped",
            virtual_memory.clone(),
        );
        registry.register("process_cpu_seconds", "CPU time used", cpu.clone());
        registry.register(
            "process_start_time_seconds",
            "When the process started",
            started.clone(),
        );
        registry.register("process_open_fds", "Open files", open_files.clone());
        process
    }

    /// Reads /proc; what cannot be read stays as it was.
    pub(super) fn read(&self) {
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            let bytes = |name: &str| Some(kibibytes(&status, name)? * 1_024);
            self.resident.set(bytes("VmRSS:").unwrap_or_default());
            self.virtual_memory
                .set(bytes("VmSize:").unwrap_or_default());
        }
        if let Some((cpu_ticks, start_ticks)) = times() {
            let cpu = cpu_ticks as f64 / USER_HZ;
            self.cpu.inner().store(cpu.to_bits(), Ordering::Relaxed);
            if let Some(booted) = boot_time() {
                self.started
                    .set(booted as f64 + start_ticks as f64 / USER_HZ);
            }
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            self.open_files.set(files.count() as i64);
        }
    }
}

fn kibibytes(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// CPU time and start, in ticks (proc_pid_stat(5), fields 14, 15 and 22).
fn times() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, field 2, may contain anything.
    let (_, after) = text.rsplit_once(") ")?;
    let field = |number: usize| after.split(' ').nth(number - 3)?.parse::<u64>().ok();
    Some((field(14)? + field(15)?, field(22)?))
}

fn boot_time() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}
