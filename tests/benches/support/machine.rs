//! The machine that figures were taken on.

use std::fs;

/// The facts of the machine that a figure is worth nothing without.
pub fn machine() -> String {
    let first = |path: &str, key: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .find(|line| line.starts_with(key))
            .and_then(|line| line.split(':').nth(1))
            .map_or_else(|| "unknown".to_owned(), |value| value.trim().to_owned())
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // Of the machine, not those that this program may use.
    let cores = fs::read_to_string("/proc/cpuinfo")
        .map_or(0, |text| text.lines().filter(|line| line.starts_with("processor")).count());
    format!(
        "{}, {cores} cores, cache {}, memory {}, Linux {}",
        first("/proc/cpuinfo", "model name"),
        first("/proc/cpuinfo", "cache size"),
        first("/proc/meminfo", "MemTotal"),
        kernel.trim()
    )
}
