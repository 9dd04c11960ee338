//! Who is measured: each takes a list, and comes and goes within a moment.
//!
//! Programs of ours are loaded anew each time that they come, so that where the kernel puts
//! their code is a draw for all of them.

use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Result, anyhow};
use aya::{
    Ebpf,
    programs::{XdpMode, xdp::XdpLink},
};
use exogate_tests::lab::{Family, Lab};

use super::scope::Kind;
use crate::rig::{List, Share, fill, twin, twins};

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

    /// Filters from now on, where packets of this family will come.
    fn begin(&mut self, family: Family) -> Result<()>;

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

    fn begin(&mut self, _: Family) -> Result<()> {
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
    link: Option<XdpLink>,
}

impl Twin {
    /// Passes or drops without looking, reads the headers and drops, or asks LPM tries.
    pub fn all(lab: &Lab, interface: u32) -> Result<Vec<Box<dyn Contender>>> {
        let twins = Arc::new(Mutex::new(twins()?));
        let twin = |(name, program)| -> Box<dyn Contender> {
            let (lab, twins) = (lab.clone(), Arc::clone(&twins));
            Box::new(Self { name, program, interface, lab, twins, link: None })
        };
        let programs = [
            ("pass, no look", PASS),
            ("empty drop", "empty"),
            ("headers, drop", "headers"),
            ("LPM tries", TRIE),
        ];
        Ok(programs.into_iter().map(twin).collect())
    }

    fn twins(&self) -> Result<MutexGuard<'_, Ebpf>> {
        self.twins.lock().map_err(|_| anyhow!("a thread panicked"))
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
        if self.program == TRIE {
            // New tries in place of those that are full.
            let mut filled = twins()?;
            fill(&mut filled, list.nets())?;
            *self.twins()? = filled;
        }
        Ok(())
    }

    fn begin(&mut self, _: Family) -> Result<()> {
        let link = self.lab.edge().run(|| {
            let mut twins = self.twins()?;
            let program = twin(&mut twins, self.program)?;
            program.load()?;
            let link = program.attach_to_if_index(self.interface, XdpMode::Driver)?;
            Ok(program.take_link(link)?)
        })?;
        self.link = Some(link);
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.link = None;
        Ok(twin(&mut *self.twins()?, self.program)?.unload()?)
    }
}
