//! The programs of `ebpf/examples/twins.rs`, to compare with.

use std::{env, net::IpAddr};

use anyhow::{Context, Result};
use aya::{
    Ebpf,
    maps::lpm_trie::{Key, LpmTrie},
    programs::Xdp,
};
use ipnet::IpNet;

/// The programs, none of them in the kernel yet, and their tries, which are empty.
pub fn twins() -> Result<Ebpf> {
    let path = env::var("EXOGATE_TWINS_OBJECT")
        .context("EXOGATE_TWINS_OBJECT is not set; start this by `cargo xtask bench`")?;
    Ok(Ebpf::load_file(path)?)
}

/// The program of that name, to load or to use.
pub fn twin<'a>(twins: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(twins.program_mut(name).with_context(|| name.to_owned())?.try_into()?)
}

/// Puts these prefixes into the tries, with a system call for each.
pub fn fill(twins: &mut Ebpf, nets: &[IpNet]) -> Result<()> {
    let map = twins.map_mut("TRIE_V4").context("TRIE_V4")?;
    let mut v4s = LpmTrie::<_, [u8; 4], u32>::try_from(map)?;
    for net in nets {
        if let IpAddr::V4(address) = net.network() {
            v4s.insert(&Key::new(net.prefix_len().into(), address.octets()), 1, 0)?;
        }
    }
    let map = twins.map_mut("TRIE_V6").context("TRIE_V6")?;
    let mut v6s = LpmTrie::<_, [u8; 16], u32>::try_from(map)?;
    for net in nets {
        if let IpAddr::V6(address) = net.network() {
            v6s.insert(&Key::new(net.prefix_len().into(), address.octets()), 1, 0)?;
        }
    }
    Ok(())
}
