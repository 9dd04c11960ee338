//! The program in the kernel, with its maps.

use std::{borrow::Cow, fmt, os::fd::AsFd as _, time::Duration};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{ProgramError, TestRun as _, TestRunOptions, Xdp, XdpMode, links::FdLink},
    util::KernelVersion,
};
use exogate_ebpf::{
    abi,
    compile::CompiledTable,
    packet::LinkLayer,
    verdict::{Action, Family, Reason, Verdict, can_occur},
};
use serde::{Deserialize, Serialize};

use crate::gate::{
    Error, Interface, batch,
    error::{Chain, has_capabilities, io_cause, kernel_release},
    observe::{BlockedSource, Count, Events, Plain},
    pins::Generation,
    tables::{self, ControlPage},
};

/// Whether an open gate can be used without any capability.
///
/// c8644cd0efe7 ("bpf: refine kernel.unprivileged_bpf_disabled behaviour"), Linux 5.19,
/// lets everybody use maps and links that he holds. Before, every BPF call wants CAP_BPF.
#[must_use]
pub fn works_without_capabilities() -> bool {
    KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(5, 19, 0))
}

/// The BPF object that the build script made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("EXOGATE_XDP_OBJECT"));

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver, before the kernel allocates anything for the packet.
    Native,
    /// In the network stack, where the driver has no XDP. Slower.
    Generic,
    /// In the NIC itself. exogate never asks for it.
    Offloaded,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Native, Self::Generic, Self::Offloaded];

    /// The name in metrics, logs, CLI and documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which modes of attachment to try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attach {
    /// Native, and generic where the driver has no native XDP.
    #[default]
    Auto,
    /// Native or nothing.
    Native,
    /// Generic.
    Generic,
}

/// A loaded program and its maps.
pub struct Program {
    ebpf: Ebpf,
    entry: &'static str,
    control: ControlPage,
    lines: u32,
    link_layer: LinkLayer,
    /// Whether packets may be judged by these tables right now.
    in_use: bool,
}

impl Program {
    /// Loads the program with maps of its own that nothing outlives, and publishes to
    /// them as if packets were judged by them: for tests and benchmarks.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn load(link_layer: LinkLayer, prefixes: u32) -> Result<Self, Error> {
        let program = Self::load_new(link_layer, tables::lines_for(prefixes, None)?)?;
        Ok(Self { in_use: true, ..program })
    }

    /// Loads the program with maps of its own. `lines` is the size of the table map.
    pub(crate) fn load_new(link_layer: LinkLayer, lines: u32) -> Result<Self, Error> {
        Self::load_with(link_layer, lines, None)
    }

    /// Loads the program with the maps of a generation that is in force.
    pub(crate) fn load_pinned(
        link_layer: LinkLayer,
        lines: u32,
        generation: &Generation,
    ) -> Result<Self, Error> {
        Self::load_with(link_layer, lines, Some(generation))
    }

    fn load_with(
        link_layer: LinkLayer,
        lines: u32,
        generation: Option<&Generation>,
    ) -> Result<Self, Error> {
        let layer3: u32 = match link_layer {
            LinkLayer::Ethernet => 0,
            LinkLayer::None => 1,
        };
        let mut loader = EbpfLoader::new();
        loader
            .btf(None)
            .verifier_log_level(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS)
            .override_global(abi::program::LAYER3, &layer3, true)
            .map_max_entries(abi::map::TABLES, lines);
        for (generation, name) in generation.iter().flat_map(|of| abi::map::ALL.map(|n| (of, n))) {
            loader.map_pin_path(name, Cow::Owned(generation.map(name)));
        }
        let mut ebpf =
            loader.load(OBJECT).map_err(|error| Error::bpf("creating its BPF maps", error))?;
        let entry = load_entry(&mut ebpf)?;
        let control = ControlPage::new(map_fd(&ebpf, abi::map::CONTROL)?.fd().as_fd())?;
        Ok(Self { ebpf, entry, control, lines, link_layer, in_use: generation.is_some() })
    }

    /// Whether it is for interfaces of this kind and its table map has this size.
    pub(crate) fn fits(&self, link_layer: LinkLayer, lines: u32) -> bool {
        (self.link_layer, self.lines) == (link_layer, lines)
    }

    /// Puts a table in force.
    ///
    /// # Errors
    ///
    /// If the table does not fit; the one before it stays in force then.
    pub fn publish(&mut self, table: &CompiledTable) -> Result<(), Error> {
        let maps = maps(&self.ebpf, self.lines)?;
        tables::publish(maps, &mut self.control, self.in_use, table)
    }

    /// The table in force.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn table(&self) -> Result<CompiledTable, Error> {
        tables::live(maps(&self.ebpf, self.lines)?, &self.control)
    }

    /// Sets the clock by which drops are sampled and blocked sources dated, in
    /// seconds since 1970. To be called every second.
    pub fn tick(&self, seconds: u32) {
        self.control.set_epoch(seconds);
    }

    /// Packets and bytes so far, for every verdict that can occur.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn counts(&self) -> Result<Vec<Count>, Error> {
        let map = typed(&self.ebpf, abi::map::COUNTERS)?;
        let cpus = PerCpuArray::<_, Plain<abi::Counters>>::try_from(map)
            .and_then(|counters| counters.get(&0, 0))
            .map_err(|error| Error::bpf("reading its counters", error))?;
        let mut counts = Vec::new();
        for action in Action::ALL {
            for reason in Reason::ALL {
                for family in Family::ALL {
                    if !can_occur(action, reason, family) {
                        continue;
                    }
                    let place = Verdict::new(action, reason, family).place() as usize;
                    let (mut packets, mut bytes) = (0u64, 0u64);
                    for counter in cpus.iter().filter_map(|cpu| cpu.0.verdicts.get(place)) {
                        packets = packets.wrapping_add(counter.packets);
                        bytes = bytes.wrapping_add(counter.bytes);
                    }
                    counts.push(Count { action, reason, family, packets, bytes });
                }
            }
        }
        Ok(counts)
    }

    /// The most active blocked sources, busiest first.
    ///
    /// # Errors
    ///
    /// If the map cannot be read.
    pub fn blocked(&self, most: usize) -> Result<Vec<BlockedSource>, Error> {
        let Map::LruHashMap(map) = typed(&self.ebpf, abi::map::BLOCKED)? else {
            return Err(missing(abi::map::BLOCKED));
        };
        let mut sources: Vec<_> = batch::elements::<abi::BlockedKey, Plain<abi::Blocked>>(map)?
            .into_iter()
            .map(|(key, Plain(blocked))| BlockedSource::new(key, blocked))
            .collect();
        sources.sort_unstable_by_key(|source| std::cmp::Reverse(source.packets));
        sources.truncate(most);
        Ok(sources)
    }

    /// The stream of recorded drops. Only one reader gets each event.
    ///
    /// # Errors
    ///
    /// If the map is gone or was taken before.
    pub fn events(&mut self) -> Result<Events, Error> {
        let map = self.ebpf.take_map(abi::map::EVENTS).ok_or_else(|| missing(abi::map::EVENTS))?;
        let ring = RingBuf::try_from(map)
            .map_err(|error| Error::bpf("opening the drop event buffer", error))?;
        Events::new(ring)
    }

    /// The kernel's id of the program.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.ebpf.program(self.entry)?.info().ok().map(|info| info.id())
    }

    /// Instructions that the verifier walked through; kernel 5.16 and later.
    #[must_use]
    pub fn verified_instructions(&self) -> Option<u32> {
        self.ebpf.program(self.entry)?.info().ok()?.verified_instruction_count()
    }

    /// Whether multi-buffer (jumbo) frames are accepted in native mode.
    #[must_use]
    pub fn takes_jumbo_frames(&self) -> bool {
        self.entry == abi::program::FRAGS
    }

    /// Runs the program on a frame without a network (BPF_PROG_TEST_RUN),
    /// `repeat` times. Returns the XDP return code and the mean time of a run.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the frame: it takes none below 14 bytes.
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<(u32, Duration), Error> {
        let program = self.ebpf.program(self.entry).ok_or_else(|| missing(self.entry))?;
        let xdp: &Xdp = program.try_into().map_err(|error| Error::bpf("finding itself", error))?;
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        let result = xdp.test_run(options).map_err(|error| Error::bpf("a test run", error))?;
        Ok((result.return_value, result.duration))
    }

    /// Pins maps of its own in a new generation.
    pub(crate) fn pin_maps(&self, generation: &Generation) -> Result<(), Error> {
        abi::map::ALL.iter().try_for_each(|name| {
            typed(&self.ebpf, name)?
                .pin(generation.map(name))
                .map_err(|error| Error::bpf("pinning its maps", error))
        })
    }

    /// Pins the program as the one that is about to run.
    pub(crate) fn pin_next(&mut self, generation: &Generation) -> Result<(), Error> {
        self.xdp()?
            .pin(generation.next_program())
            .map_err(|error| Error::bpf("pinning the program", error))
    }

    /// Replaces the program of an attached link in one step.
    pub(crate) fn replace(&mut self, link: FdLink) -> Result<(), Error> {
        self.in_use = true;
        let link = link.try_into().map_err(|error| Error::bpf("using the pinned link", error))?;
        let xdp = self.xdp()?;
        // The pin alone is to hold the link, so that removing it detaches.
        xdp.attach_to_link(link)
            .and_then(|id| xdp.take_link(id))
            .map(drop)
            .map_err(|error| Error::bpf("replacing the attached program", error))
    }

    /// Attaches the program to an interface that has none.
    pub(crate) fn attach(
        &mut self,
        interface: &Interface,
        attach: Attach,
    ) -> Result<(FdLink, Mode), Error> {
        self.in_use = true;
        let native = match attach {
            Attach::Generic => None,
            Attach::Auto | Attach::Native => match self.attach_as(interface, XdpMode::Driver) {
                Ok(link) => return Ok((link, Mode::Native)),
                Err(error) => Some(error),
            },
        };
        match native {
            Some(error) if attach == Attach::Native => {
                return Err(match io_cause(&error) {
                    Some(code @ (libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE)) => {
                        Error::NoNativeXdp {
                            interface: interface.name.clone(),
                            source: std::io::Error::from_raw_os_error(code),
                        }
                    }
                    _ => Error::bpf("attaching in native mode", error),
                });
            }
            Some(error) => tracing::warn!(
                interface = interface.name,
                error = %Chain::new(&error),
                "native XDP refused, trying the slower generic mode"
            ),
            None => {}
        }
        let link = self
            .attach_as(interface, XdpMode::Skb)
            .map_err(|error| Error::bpf("attaching in generic mode", error))?;
        Ok((link, Mode::Generic))
    }

    fn attach_as(&mut self, interface: &Interface, mode: XdpMode) -> Result<FdLink, ProgramError> {
        let xdp: &mut Xdp =
            self.ebpf.program_mut(self.entry).ok_or(ProgramError::NotLoaded)?.try_into()?;
        let link = xdp.attach_to_if_index(interface.index, mode)?;
        let link = xdp.take_link(link)?;
        // Kernels that refuse a link with EINVAL get an unpinnable attachment
        // from the library; dropping it detaches it again.
        FdLink::try_from(link)
            .map_err(|_| ProgramError::IOError(std::io::Error::from_raw_os_error(libc::EINVAL)))
    }

    fn xdp(&mut self) -> Result<&mut Xdp, Error> {
        self.ebpf
            .program_mut(self.entry)
            .ok_or_else(|| missing(self.entry))?
            .try_into()
            .map_err(|error| Error::bpf("finding itself", error))
    }
}

/// Loads the best entry that the kernel takes and returns its name.
fn load_entry(ebpf: &mut Ebpf) -> Result<&'static str, Error> {
    // BPF_F_XDP_HAS_FRAGS is c2f2cdbeffda ("bpf: introduce BPF_F_XDP_HAS_FRAGS
    // flag in prog_flags loading the ebpf program"), Linux 5.18.
    let takes_frags =
        KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(5, 18, 0));
    let entry = if takes_frags { abi::program::FRAGS } else { abi::program::LINEAR };
    let program = ebpf.program_mut(entry).ok_or_else(|| missing(entry))?;
    let xdp: &mut Xdp = program.try_into().map_err(|error| Error::bpf("finding itself", error))?;
    match xdp.load() {
        Ok(()) => Ok(entry),
        Err(ProgramError::LoadError { io_error, verifier_log }) => {
            tracing::debug!(%verifier_log, "the verifier refused the program");
            // Without CAP_PERFMON the verifier refuses what it otherwise accepts.
            Err(if has_capabilities() {
                Error::Unsupported {
                    release: kernel_release(),
                    action: "loading the XDP program",
                    source: format!("{io_error}{}", last_words(&verifier_log)).into(),
                }
            } else {
                Error::Permission { action: "loading the XDP program", source: io_error }
            })
        }
        Err(error) => Err(Error::bpf("loading the XDP program", error)),
    }
}

/// What the verifier said last, which is why; before it are its steps.
fn last_words(log: &impl fmt::Display) -> String {
    let log = log.to_string();
    let is_statistic = |line: &str| {
        ["processed ", "stack depth ", "verification time "].iter().any(|s| line.starts_with(s))
    };
    let is_reason = |line: &&str| !line.trim().is_empty() && !is_statistic(line);
    let line = log.lines().rev().find(is_reason);
    line.map_or_else(String::new, |line| format!(" (the verifier: {})", line.trim()))
}

fn maps(ebpf: &Ebpf, lines: u32) -> Result<tables::Maps<'_>, Error> {
    let tables = map_fd(ebpf, abi::map::TABLES)?.fd().as_fd();
    let control = map_fd(ebpf, abi::map::CONTROL)?.fd().as_fd();
    Ok(tables::Maps { tables, lines, control })
}

fn typed<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a Map, Error> {
    ebpf.map(name).ok_or_else(|| missing(name))
}

/// The untyped data of a map of the object.
fn map_fd<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a MapData, Error> {
    match typed(ebpf, name)? {
        Map::Array(data) => Ok(data),
        _ => Err(missing(name)),
    }
}

fn missing(name: &'static str) -> Error {
    Error::bpf("finding a part of the BPF object", MapError::InvalidName { name: name.to_owned() })
}
