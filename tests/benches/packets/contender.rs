//! Who is measured: each takes a list, and comes and goes within a moment.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use aya::{
    Ebpf,
    maps::lpm_trie::{Key, LpmTrie},
    programs::{Xdp, XdpMode, xdp::XdpLink},
};
use exogate_tests::lab::Lab;
use ipnet::IpNet;

use super::scope::Kind;
use crate::rig::{List, Share};

/// The twins that let packets pass: all, or those on the list.
const PASS: &str = "pass";
const TRIE: &str = "trie";

/// A filter, or none.
pub trait Contender {
    /// What it is called in tables.
    fn name(&self) -> &'static str;

    /// Whether it takes part where such packets come.
    fn can(&self, _kind: &Kind) -> bool {
        true
    }

    /// The share of packets that it lets pass; by default what is on the list, and nothing
    /// else.
    fn passing(&self, share: Share) -> f64 {
        share.passing()
    }

    /// Takes a list, in place of the one before.
    fn take(&mut self, _list: &List) -> Result<()> {
        Ok(())
    }

    /// Filters from now on.
    fn begin(&mut self) -> Result<()>;

    /// Filters no longer.
    fn end(&mut self) -> Result<()>;
}

/// No filter.
pub struct Nothing;

impl Contender for Nothing {
    fn name(&self) -> &'static str {
        "no filter"
    }

    fn can(&self, kind: &Kind) -> bool {
        kind.share != Share::Dropped
    }

    fn passing(&self, _: Share) -> f64 {
        1.0
    }

    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A program of `ebpf/examples/twins.rs`.
pub struct Twin {
    name: &'static str,
    program: &'static str,
    interface: u32,
    lab: Lab,
    twins: Arc<Mutex<Ebpf>>,
    filled: Vec<IpNet>,
    link: Option<XdpLink>,
}

impl Twin {
    /// Passes or drops without looking, reads the headers and drops, or asks LPM tries.
    pub fn all(lab: &Lab, interface: u32, object: &str) -> Result<Vec<Box<dyn Contender>>> {
        let mut twins = Ebpf::load_file(object)?;
        let programs = [
            ("pass, no look", PASS),
            ("empty drop", "empty"),
            ("headers, drop", "headers"),
            ("LPM tries", TRIE),
        ];
        for (_, program) in programs {
            let program: &mut Xdp = twins.program_mut(program).context(program)?.try_into()?;
            program.load()?;
        }
        let twins = Arc::new(Mutex::new(twins));
        let twin = |(name, program)| -> Box<dyn Contender> {
            let (lab, twins) = (lab.clone(), Arc::clone(&twins));
            Box::new(Self { name, program, interface, lab, twins, filled: Vec::new(), link: None })
        };
        Ok(programs.into_iter().map(twin).collect())
    }
}

impl Contender for Twin {
    fn name(&self) -> &'static str {
        self.name
    }

    fn can(&self, kind: &Kind) -> bool {
        match self.program {
            TRIE => true,
            PASS => kind.share == Share::Passed,
            _ => kind.share == Share::Dropped,
        }
    }

    fn passing(&self, share: Share) -> f64 {
        match self.program {
            TRIE => share.passing(),
            PASS => 1.0,
            _ => 0.0,
        }
    }

    fn take(&mut self, list: &List) -> Result<()> {
        if self.program != TRIE {
            return Ok(());
        }
        let mut twins = self.twins.lock().map_err(|_| anyhow!("a thread panicked"))?;
        let v4s = twins.map_mut("TRIE_V4").context("TRIE_V4")?;
        let mut v4s = LpmTrie::<_, [u8; 4], u32>::try_from(v4s)?;
        for net in self.filled.iter().filter(|net| net.addr().is_ipv4()) {
            v4s.remove(&v4_key(net))?;
        }
        for net in list.nets().iter().filter(|net| net.addr().is_ipv4()) {
            v4s.insert(&v4_key(net), 1, 0)?;
        }
        let v6s = twins.map_mut("TRIE_V6").context("TRIE_V6")?;
        let mut v6s = LpmTrie::<_, [u8; 16], u32>::try_from(v6s)?;
        for net in self.filled.iter().filter(|net| net.addr().is_ipv6()) {
            v6s.remove(&v6_key(net))?;
        }
        for net in list.nets().iter().filter(|net| net.addr().is_ipv6()) {
            v6s.insert(&v6_key(net), 1, 0)?;
        }
        self.filled = list.nets().to_vec();
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let (twins, interface, name) = (&self.twins, self.interface, self.program);
        self.link = Some(self.lab.edge().run(|| {
            let mut twins = twins.lock().map_err(|_| anyhow!("a thread panicked"))?;
            let program: &mut Xdp = twins.program_mut(name).context(name)?.try_into()?;
            let link = program.attach_to_if_index(interface, XdpMode::Driver)?;
            Ok(program.take_link(link)?)
        })?);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.link = None;
        Ok(())
    }
}

fn v4_key(net: &IpNet) -> Key<[u8; 4]> {
    let octets = match net {
        IpNet::V4(net) => net.network().octets(),
        IpNet::V6(_) => [0; 4],
    };
    Key::new(net.prefix_len().into(), octets)
}

fn v6_key(net: &IpNet) -> Key<[u8; 16]> {
    let octets = match net {
        IpNet::V4(_) => [0; 16],
        IpNet::V6(net) => net.network().octets(),
    };
    Key::new(net.prefix_len().into(), octets)
}
