//! What the benchmarks share: real lists, reproducible randomness, medians, and
//! the facts of the machine.

#![allow(dead_code, unreachable_pub, reason = "each benchmark uses a part of it")]

use std::{
    collections::BTreeSet,
    fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;
use ipnet::IpNet;
use serde_json::Value;

/// The prefixes of Exchange Online with TCP port 443, as captured in 2026-05: 34.
pub fn exchange() -> Vec<IpNet> {
    let text = fs::read(data("worldwide/worldwide-captured-2026-05-29.json")).unwrap();
    let sets: Value = serde_json::from_slice(&text).unwrap();
    let nets: BTreeSet<IpNet> = sets
        .as_array()
        .unwrap()
        .iter()
        .filter(|set| set["serviceArea"] == "Exchange")
        .filter(|set| {
            let ports = set["tcpPorts"].as_str().unwrap_or_default();
            ports.split(',').any(|port| port.trim() == "443")
        })
        .flat_map(|set| strings(&set["ips"]))
        .collect();
    assert_eq!(nets.len(), 34, "the capture has changed");
    nets.into_iter().collect()
}

/// All distinct prefixes of Azure's service tags: 53,586.
pub fn service_tags() -> Vec<IpNet> {
    let file =
        fs::File::open(data("servicetags/ServiceTags_Public-changeNumber376-2025-11-10.json.gz"));
    let mut text = String::new();
    GzDecoder::new(file.unwrap()).read_to_string(&mut text).unwrap();
    let tags: Value = serde_json::from_str(&text).unwrap();
    let nets: BTreeSet<IpNet> = tags["values"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|tag| strings(&tag["properties"]["addressPrefixes"]))
        .collect();
    assert_eq!(nets.len(), 53_586, "the capture has changed");
    nets.into_iter().collect()
}

fn strings(value: &Value) -> Vec<IpNet> {
    let strings = value.as_array().into_iter().flatten();
    strings.map(|text| text.as_str().unwrap().parse().unwrap()).collect()
}

fn data(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(relative)
}

/// Reproducible random numbers (SplitMix64).
pub struct Random(u64);

impl Random {
    /// A sequence that depends on nothing but its seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Any 128 bits.
    pub fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

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
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{}, {cores} cores, cache {}, memory {}, Linux {}",
        first("/proc/cpuinfo", "model name"),
        first("/proc/cpuinfo", "cache size"),
        first("/proc/meminfo", "MemTotal"),
        kernel.trim()
    )
}
