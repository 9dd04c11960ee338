//! What the benchmarks share: medians, and the facts of the machine.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses a part of it")]

use std::{fmt, fs};

/// A median with its range.
pub struct Median {
    pub least: f64,
    pub middle: f64,
    pub most: f64,
}

/// The median of some measurements.
pub fn median(mut values: Vec<f64>) -> Median {
    values.sort_by(f64::total_cmp);
    let middle = values[values.len() / 2];
    Median { least: values[0], middle, most: values[values.len() - 1] }
}

impl fmt::Display for Median {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ({:.1}..{:.1})", self.middle, self.least, self.most)
    }
}

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
