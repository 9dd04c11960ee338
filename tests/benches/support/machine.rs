//! The machine that figures were taken on, and what of it decides most about them.

use std::{env, fs, path::Path};

/// What the kernel does against the processor's leaks that makes indirect calls dear, and with
/// them each call of a BPF program and each step of nftables.
const MITIGATIONS: [&str; 3] = ["spectre_v2", "retbleed", "spec_rstack_overflow"];

/// The facts without which a figure is worth nothing, and the commit that was measured.
pub fn machine() -> String {
    let cpu = read("/proc/cpuinfo");
    let of_cpu = |key| value(&cpu, key);
    // Of the machine, not those that this program may use.
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    format!(
        "{} (family {}, model {}, stepping {}), {cores} cores, {}, memory {}, Linux {}; {}; commit {}",
        of_cpu("model name"),
        of_cpu("cpu family"),
        of_cpu("model\t"),
        of_cpu("stepping"),
        caches(),
        value(&read("/proc/meminfo"), "MemTotal"),
        read("/proc/sys/kernel/osrelease").trim(),
        MITIGATIONS.map(mitigation).join(", "),
        env::var("EXOGATE_COMMIT").unwrap_or_else(|_| "unknown".to_owned()),
    )
}

/// The caches behind the first one. `cache size` of /proc/cpuinfo is L2 with AMD, and the last
/// one with Intel, so it does not say which.
fn caches() -> String {
    let caches: Vec<String> = (0..8).filter_map(cache).collect();
    if caches.is_empty() { "caches unknown".to_owned() } else { caches.join(", ") }
}

fn cache(number: u32) -> Option<String> {
    let directory = format!("/sys/devices/system/cpu/cpu0/cache/index{number}");
    let fact = |name: &str| fs::read_to_string(Path::new(&directory).join(name)).ok();
    let (level, size) = (fact("level")?, fact("size")?);
    (level.trim() != "1").then(|| format!("L{} cache {}", level.trim(), size.trim()))
}

/// One of the kernel's mitigations, in its own words up to the first detail.
fn mitigation(name: &str) -> String {
    let text = read(&format!("/sys/devices/system/cpu/vulnerabilities/{name}"));
    let first = text.split(';').next().unwrap_or_default().trim();
    let short = first.trim_start_matches("Mitigation: ");
    format!("{name}: {}", if short.is_empty() { "unknown" } else { short })
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What stands behind a key and a colon.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split(':').nth(1)).map_or("unknown", str::trim)
}
