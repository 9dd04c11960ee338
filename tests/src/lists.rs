//! Lists of prefixes: a short and a long one from the captures, and made ones of any
//! length.

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    net::{Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::Value;

use crate::{random::Random, service::captures};

/// The prefixes of Exchange Online with TCP port 443, as captured in 2026-05: 34.
///
/// # Errors
///
/// If the capture is another one.
pub fn exchange() -> Result<Vec<IpNet>> {
    let text = fs::read(captures().join("worldwide/worldwide-captured-2026-05-29.json"))?;
    let sets: Vec<Value> = serde_json::from_slice(&text)?;
    let text = |set: &Value, key: &str| {
        set.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let chosen = sets.iter().filter(|set| {
        text(set, "serviceArea") == "Exchange"
            && text(set, "tcpPorts").split(',').any(|port| port.trim() == "443")
    });
    let nets = prefixes(chosen.filter_map(|set| set.get("ips")))?;
    ensure!(nets.len() == 34, "the capture has changed: {} prefixes", nets.len());
    Ok(nets)
}

/// All distinct prefixes of Azure's service tags: 53,586.
///
/// # Errors
///
/// If the capture is another one.
pub fn service_tags() -> Result<Vec<IpNet>> {
    let path = captures().join("servicetags/ServiceTags_Public-changeNumber376-2025-11-10.json.gz");
    let mut text = String::new();
    GzDecoder::new(fs::File::open(path)?).read_to_string(&mut text)?;
    let tags: Value = serde_json::from_str(&text)?;
    let tags = tags.get("values").and_then(Value::as_array).context("no tags")?;
    let nets = prefixes(tags.iter().filter_map(|tag| tag.pointer("/properties/addressPrefixes")))?;
    ensure!(nets.len() == 53_586, "the capture has changed: {} prefixes", nets.len());
    Ok(nets)
}

/// So many disjoint prefixes of a family, at most 2^20, sorted, spread evenly over its
/// addresses, each in a block of its own: four to twelve bits longer than the block (IPv4),
/// or 9 to 41 (IPv6, in 2000::/3). A million are /24 to /32, or /32 to /64.
#[must_use]
#[allow(clippy::arithmetic_side_effects, reason = "small numbers of bits")]
pub fn spread(count: u32, v6: bool) -> Vec<IpNet> {
    let mut random = Random::new(9);
    let block = count.checked_next_power_of_two().unwrap_or(1 << 31).trailing_zeros();
    let mut net = |number: u32| -> Option<IpNet> {
        let more = random.below(if v6 { 33 } else { 9 });
        let length = more.checked_add(if v6 { 12 } else { 4 })?.checked_add(block as usize)?;
        let length = u8::try_from(length).ok()?;
        if v6 {
            let within = random.wide().checked_shr(block.checked_add(3)?)?;
            let first = u128::from(number).checked_shl(125_u32.checked_sub(block)?)?;
            let address = Ipv6Addr::from_bits(1 << 125 | first | within);
            Some(Ipv6Net::new(address, length).ok()?.trunc().into())
        } else {
            let within = (random.next() as u32).checked_shr(block)?;
            let first = number.checked_shl(32_u32.checked_sub(block)?)?;
            Some(Ipv4Net::new(Ipv4Addr::from_bits(first | within), length).ok()?.trunc().into())
        }
    };
    (0..count).filter_map(&mut net).collect()
}

/// Sorted, each once.
fn prefixes<'a>(lists: impl Iterator<Item = &'a Value>) -> Result<Vec<IpNet>> {
    let texts = lists.filter_map(Value::as_array).flatten().filter_map(Value::as_str);
    let nets: BTreeSet<IpNet> = texts.map(str::parse).collect::<Result<_, _>>()?;
    Ok(nets.into_iter().collect())
}
