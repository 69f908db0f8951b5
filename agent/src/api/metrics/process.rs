//! What the process itself uses, read from `/proc/self` when it is asked for (proc(5)), under the names that every
//! Prometheus client gives it.

use std::fs;

use prometheus::core::Collector;
use prometheus::{Counter, IntGauge};

use crate::metrics::gauge;

/// How many ticks `/proc` counts to a second (`USER_HZ`): fixed by Linux' interface on the architectures of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// Which fields of `/proc/self/stat` come how many places behind the command's closing parenthesis.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const START_TICKS: usize = 19;

/// The process' numbers, as they were at the last look.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    cpu_seconds: Counter,
    resident_bytes: IntGauge,
    open_files: IntGauge,
    max_files: IntGauge,
    start_time: prometheus::Gauge,
}

impl ProcessMetrics {
    pub(super) fn new() -> ProcessMetrics {
        let good = "a name that Prometheus takes";
        let cpu = Counter::new(
            "process_cpu_seconds_total",
            "User and system CPU time spent, in seconds.",
        );
        let start = prometheus::Gauge::new(
            "process_start_time_seconds",
            "Start time of the process since the Unix epoch, in seconds.",
        );
        ProcessMetrics {
            cpu_seconds: cpu.expect(good),
            resident_bytes: gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
            open_files: gauge("process_open_fds", "Number of open file descriptors."),
            max_files: gauge("process_max_fds", "Maximum number of open file descriptors."),
            start_time: start.expect(good),
        }
    }

    /// The families.
    pub(super) fn families(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.cpu_seconds.clone()),
            Box::new(self.resident_bytes.clone()),
            Box::new(self.open_files.clone()),
            Box::new(self.max_files.clone()),
            Box::new(self.start_time.clone()),
        ]
    }

    /// Looks. What cannot be read stays as it was.
    #[expect(
        clippy::disallowed_methods,
        reason = "/proc/self is the kernel's, and answers at once"
    )]
    pub(super) fn look(&self) {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let stat = read("/proc/self/stat");
        if let Some(used) = cpu_seconds(&stat) {
            self.cpu_seconds.inc_by((used - self.cpu_seconds.get()).max(0.0));
        }
        if let (Some(started), Some(booted)) = (start_seconds(&stat), boot_time(&read("/proc/stat"))) {
            self.start_time.set(booted + started);
        }
        if let Some(bytes) = resident_bytes(&read("/proc/self/status")) {
            self.resident_bytes.set(bytes);
        }
        if let Some(files) = max_files(&read("/proc/self/limits")) {
            self.max_files.set(files);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is this look at them.
            self.open_files
                .set(i64::try_from(open.count()).unwrap_or(i64::MAX) - 1);
        }
    }
}

/// A field behind the command, which may hold spaces and parentheses of its own.
fn field(stat: &str, place: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(place)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, USER_TICKS)? + field(stat, SYSTEM_TICKS)?) / TICKS_PER_SECOND)
}

/// From the start of the machine to that of the process.
fn start_seconds(stat: &str) -> Option<f64> {
    Some(field(stat, START_TICKS)? / TICKS_PER_SECOND)
}

fn boot_time(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The soft limit: the one that holds.
fn max_files(limits: &str) -> Option<i64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_proc_says_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 9 0 12345 1 2 3";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(start_seconds(stat), Some(123.45));
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
        assert_eq!(resident_bytes("VmSize:\t 9 kB\nVmRSS:\t    12 kB\n"), Some(12288));
        assert_eq!(
            max_files("Max open files            1024                 4096                 files"),
            Some(1024)
        );
    }

    #[test]
    fn what_proc_does_not_say_is_not_made_up() {
        assert_eq!(cpu_seconds(""), None);
        assert_eq!(resident_bytes("VmRSS: many"), None);
        assert_eq!(max_files("Max open files unlimited"), None);
    }
}
