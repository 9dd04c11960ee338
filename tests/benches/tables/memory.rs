//! What memory something takes, as far as the kernel tells: of BPF maps and of ipset's sets
//! it tells exactly. Of nftables' sets it does not, so they are what all of the kernel has
//! grown by, which is worth something only for long lists.

use std::{collections::BTreeMap, fs, thread, time::Duration};

/// How long the kernel may take to free what was given up before: it waits until nobody
/// reads it any more.
const FREEING: Duration = Duration::from_secs(1);

/// All BPF maps that this process holds, in bytes.
pub fn of_maps() -> u64 {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo").unwrap() {
        // The directory itself was open, and is no longer.
        let Ok(text) = fs::read_to_string(entry.unwrap().path()) else { continue };
        if let Some(number) = value(&text, "map_id:") {
            maps.insert(number, value(&text, "memlock:").expect("a map has memlock"));
        }
    }
    maps.values().sum()
}

/// The sets in what `ipset list -terse` prints, in bytes.
pub fn of_ipset(text: &str) -> u64 {
    let sizes = text.lines().filter_map(|line| value(line, "Size in memory:"));
    sizes.sum()
}

/// The kernel's own, in bytes.
pub fn of_kernel() -> u64 {
    thread::sleep(FREEING);
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let of = |name| value(&text, name).expect("a line of /proc/meminfo");
    1024 * (of("SUnreclaim:") + of("VmallocUsed:"))
}

/// The most that this process had at once, in bytes, since [`forget_peak`].
pub fn peak() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    1024 * value(&text, "VmHWM:").expect("a line of /proc/self/status")
}

/// Lets [`peak`] begin anew.
pub fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// The number behind a name at the beginning of a line.
fn value(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}
