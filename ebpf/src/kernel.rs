//! Maps, entry points, counting and sampling.

use core::hint::cold_path;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, xdp_action},
    helpers::{bpf_ktime_get_boot_ns, bpf_xdp_get_buff_len},
    macros::{map, xdp},
    maps::{Array, LruHashMap, PerCpuArray, RingBuf},
    programs::XdpContext,
};
use exogate_ebpf::{
    abi::{
        Blocked, BlockedKey, COUNTER_PLACES, Control, Counters, DropEvent, Line, SAMPLE_INTERVAL,
        SAMPLED_PER_EPOCH, Sampler,
    },
    opaque::{masked, opaque},
    packet::{self, Address, LinkLayer, Packet, Parsed, Plain},
    table::{Lines, Table},
    verdict::{Action, Family, Judge, Verdict},
};

// The capacities below are replaced by the loader.

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static TABLES: Array<Line> = Array::with_max_entries(2, BPF_F_MMAPABLE);
#[map]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);
#[map]
static BLOCKED: LruHashMap<BlockedKey, Blocked> = LruHashMap::with_max_entries(16_384, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

/// 1 on interfaces whose frames begin with the IP header. The loader sets it
/// before the program is verified, so the other path is dead code.
#[unsafe(no_mangle)]
static LAYER3: u32 = 0;

/// Entry for drivers and kernels without multi-buffer XDP.
#[xdp]
fn exogate(context: XdpContext) -> u32 {
    let frame = Frame::of(&context);
    run(&context, &frame, (frame.end - frame.start) as u32)
}

/// Entry for multi-buffer frames: only the first buffer is mapped, which holds
/// the headers.
#[xdp(frags)]
fn exogate_frags(context: XdpContext) -> u32 {
    let frame = Frame::of(&context);
    let mut length = (frame.end - frame.start) as u32;
    // Only a long first buffer is followed by others; the call costs as much as
    // a counter.
    if length >= 1024 {
        cold_path();
        // SAFETY: `ctx` is the context that the kernel gave to this program.
        length = unsafe { bpf_xdp_get_buff_len(context.ctx) } as u32;
    }
    run(&context, &frame, length)
}

#[inline(always)]
fn run(context: &XdpContext, frame: &Frame, length: u32) -> u32 {
    // Cannot fail: the map has one element. Should it fail all the same, the host
    // stays reachable.
    let Some(control) = CONTROL.get(0) else { return xdp_action::XDP_PASS };
    // SAFETY: a place in the map; the agent may switch it at any time.
    let live = unsafe { core::ptr::read_volatile(&raw const control.live) };
    // SAFETY: one bit is below the two heads.
    let head = unsafe { control.heads.get_unchecked((live & 1) as usize) };
    let judge = Judge(Table::new(&TablesMap, head));
    let verdict = packet::parse_then(frame, link_layer(), &judge);
    // Cannot fail either.
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return xdp_action::XDP_PASS };
    // SAFETY: the element of this CPU, which no other CPU writes, and XDP does not
    // preempt itself.
    let counters = unsafe { &mut *counters };
    if verdict.passes() {
        count(counters, verdict, length);
        return xdp_action::XDP_PASS;
    }
    let Judge(table) = judge;
    // SAFETY: it reads a clock.
    let verdict = table.by_now(verdict, || unsafe { bpf_ktime_get_boot_ns() });
    count(counters, verdict, length);
    // SAFETY: the agent writes the epoch while the program runs.
    let epoch = unsafe { core::ptr::read_volatile(&raw const control.epoch) };
    if let Some(weight) = sample(&mut counters.sampler, epoch) {
        cold_path();
        record(context, verdict, length, weight, epoch);
    }
    match verdict.action() {
        Action::Drop => xdp_action::XDP_DROP,
        Action::Pass | Action::WouldDrop => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn link_layer() -> LinkLayer {
    // SAFETY: a volatile read of a constant in a read-only map.
    let layer3 = unsafe { core::ptr::read_volatile(&raw const LAYER3) };
    if layer3 == 0 { LinkLayer::Ethernet } else { LinkLayer::None }
}

/// The mapped part of a frame.
struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    fn of(context: &XdpContext) -> Self {
        // The context has them as numbers of 32 bits, which the optimiser would keep on the
        // stack as such: the verifier wants pointers whole.
        let [start, end] = [context.data(), context.data_end()].map(|at| opaque(at as u64));
        Self { start: start as usize, end: end as usize }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn read<T: Plain>(&self, offset: usize) -> Option<T> {
        let at = self.start + offset;
        let mut after = at + size_of::<T>();
        if size_of::<T>() == 1 {
            // `at + 1 > end` would become `at >= end`, from which the verifier
            // learns nothing.
            after = opaque(after as u64) as usize;
        }
        if after > self.end {
            return None;
        }
        // SAFETY: the bytes lie inside the frame, and any bytes are a T. BPF
        // loads may be unaligned on every architecture that runs XDP; the
        // verifier refuses the program elsewhere.
        Some(unsafe { *(at as *const T) })
    }
}

struct TablesMap;

impl Lines for TablesMap {
    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        TABLES.get(index)
    }
}

#[inline(always)]
fn count(counters: &mut Counters, verdict: Verdict, length: u32) {
    let place = masked::<{ COUNTER_PLACES as u32 - 1 }>(u64::from(verdict.place()));
    // SAFETY: the masked place is below COUNTER_PLACES.
    let counter = unsafe { counters.verdicts.get_unchecked_mut(place) };
    counter.packets += 1;
    counter.bytes += u64::from(length);
}

/// Whether it is this refused packet's turn to be recorded, and how many it then
/// stands for.
#[inline(always)]
fn sample(sampler: &mut Sampler, epoch: u32) -> Option<u32> {
    if sampler.epoch != epoch {
        *sampler = Sampler { epoch, drops: 0 };
    }
    sampler.drops = sampler.drops.wrapping_add(1);
    if sampler.drops <= SAMPLED_PER_EPOCH {
        Some(1)
    } else if sampler.drops % SAMPLE_INTERVAL == 0 {
        Some(SAMPLE_INTERVAL)
    } else {
        None
    }
}

/// Records a refused packet in the ring buffer and among the blocked sources. It
/// is parsed again: that is rare, and spares the others from keeping its fields.
#[inline(never)]
fn record(context: &XdpContext, verdict: Verdict, length: u32, weight: u32, epoch: u32) {
    // Filling the event with zeros first would be a loop over its bytes, which the verifier
    // would walk for each way through the parser.
    let unknown = Address::V6(0, 0);
    let (source, destination, protocol, source_port, port) =
        match packet::parse(&Frame::of(context), link_layer()) {
            Parsed::Flow { source, destination, protocol, source_port, port } => {
                (source, destination, protocol, source_port, port)
            }
            Parsed::Unparsable { source: Some(source), .. } => (source, unknown, 0, 0, 0),
            _ => (unknown, unknown, 0, 0, 0),
        };
    let event = DropEvent {
        source: source.octets(),
        destination: destination.octets(),
        weight,
        length,
        source_port,
        port,
        protocol,
        action: verdict.action() as u8,
        reason: verdict.reason() as u8,
        family: verdict.family() as u8,
    };
    if verdict.family() != Family::Other {
        remember(&event, epoch);
    }
    // A full buffer loses the event, not the count.
    let _ = EVENTS.output::<DropEvent>(&event, 0);
}

#[inline(always)]
fn remember(event: &DropEvent, epoch: u32) {
    let (port, protocol, action) = (event.port, event.protocol, event.action);
    if let Some(blocked) = BLOCKED.get_ptr_mut(&event.source) {
        // SAFETY: the element stays valid while the program runs; another CPU
        // may write it too, which costs a count of an estimate.
        unsafe {
            (*blocked).packets += u64::from(event.weight);
            (*blocked).last_seen = epoch;
            (*blocked).port = port;
            (*blocked).protocol = protocol;
            (*blocked).action = action;
        }
        return;
    }
    let packets = u64::from(event.weight);
    let blocked = Blocked { packets, last_seen: epoch, port, protocol, action };
    let _ = BLOCKED.insert(&event.source, &blocked, 0);
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: nothing in this program can panic, and the linker would not
    // emit a loop that the verifier accepts.
    loop {}
}

// What the kernel asks for before it lends helpers that it exports to GPL programs
// only; it knows this spelling of a dual licence and not ours.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
