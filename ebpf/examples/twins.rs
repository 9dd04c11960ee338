//! Programs to measure exogate against. Never shipped.
//!
//! - `pass` passes without looking: what a wire does for a packet because there is a
//!   program at all.
//! - `empty` drops without looking: what XDP itself costs.
//! - `headers` finds the addresses and the port, and drops: the limit for a
//!   program that has to read the packet.
//! - `trie` does what exogate does for one guard on port 443, but with the
//!   kernel's LPM tries in place of the interval index.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![allow(unsafe_code, reason = "a BPF program reads packets and maps through raw pointers")]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod kernel {
    use aya_ebpf::{
        bindings::xdp_action::{XDP_DROP, XDP_PASS},
        macros::{map, xdp},
        maps::{LpmTrie, PerCpuArray, lpm_trie::Key},
        programs::XdpContext,
    };
    use exogate_ebpf::{
        abi::Counter,
        packet::{self, Address, LinkLayer, Packet, Parsed, Plain},
        verdict::{Action, Reason, Verdict},
    };

    /// The value of each prefix: a mask of sources.
    #[map]
    static TRIE_V4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1 << 21, 0);
    #[map]
    static TRIE_V6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1 << 21, 0);
    #[map]
    static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(Verdict::COUNT, 0);

    #[xdp]
    fn pass(_: XdpContext) -> u32 {
        XDP_PASS
    }

    #[xdp]
    fn empty(_: XdpContext) -> u32 {
        XDP_DROP
    }

    #[xdp]
    fn headers(context: XdpContext) -> u32 {
        match parse(&context) {
            Parsed::Flow { source, port: 443, .. } => match source {
                // Every address is read; none of them is this one.
                Address::V4(0) | Address::V6(0, 0) => XDP_PASS,
                _ => XDP_DROP,
            },
            _ => XDP_PASS,
        }
    }

    #[xdp]
    fn trie(context: XdpContext) -> u32 {
        let length = context.data_end() - context.data();
        let Parsed::Flow { source, port: 443, .. } = parse(&context) else { return XDP_PASS };
        let mask = match source {
            Address::V4(address) => TRIE_V4.get(Key::new(32, address.to_be_bytes())),
            Address::V6(..) => TRIE_V6.get(Key::new(128, source.octets())),
        };
        let (action, reason) = match mask {
            Some(mask) if mask & 1 != 0 => (Action::Pass, Reason::Allowed),
            _ => (Action::Drop, Reason::Unlisted),
        };
        let verdict = Verdict::new(action, reason, source.family());
        if let Some(counter) = COUNTERS.get_ptr_mut(verdict.place()) {
            // SAFETY: the element of this CPU, which no other CPU writes.
            let counter = unsafe { &mut *counter };
            counter.packets += 1;
            counter.bytes += length as u64;
        }
        if verdict.passes() { XDP_PASS } else { XDP_DROP }
    }

    #[inline(always)]
    fn parse(context: &XdpContext) -> Parsed {
        let frame = Frame { start: context.data(), end: context.data_end() };
        packet::parse(&frame, LinkLayer::Ethernet)
    }

    struct Frame {
        start: usize,
        end: usize,
    }

    impl Packet for Frame {
        #[inline(always)]
        fn read<T: Plain>(&self, offset: usize) -> Option<T> {
            let at = self.start + offset;
            if at + size_of::<T>() > self.end {
                return None;
            }
            // SAFETY: the bytes lie inside the frame, and any bytes are a T.
            Some(unsafe { *(at as *const T) })
        }
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}
