//! The sender of the benchmarks of packets. Never shipped.
//!
//! The kernel runs it on frames that it makes itself (live frames of
//! BPF_PROG_TEST_RUN), which costs a core far less than sending through a socket. It
//! gives each frame the next source address of a list and sends it out of an
//! interface.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![allow(unsafe_code, reason = "a BPF program reads packets and maps through raw pointers")]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod kernel {
    use aya_ebpf::{
        bindings::xdp_action::XDP_ABORTED,
        helpers::bpf_redirect,
        macros::{map, xdp},
        maps::Array,
        programs::XdpContext,
    };

    /// A source address in network byte order, and the checksum that a frame with it
    /// carries.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Source {
        address: [u32; 4],
        checksum: u16,
        _unused: [u16; 3],
    }

    /// What the next frame gets, and how many sources take turns.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Turn {
        next: u32,
        sources: u32,
    }

    #[map]
    static SOURCES: Array<Source> = Array::with_max_entries(1 << 16, 0);
    #[map]
    static TURN: Array<Turn> = Array::with_max_entries(1, 0);

    /// The number of the interface to send out of. The loader sets it.
    #[unsafe(no_mangle)]
    static INTERFACE: u32 = 0;

    /// Where things are in an Ethernet frame.
    const IPV4_CHECKSUM: usize = 24;
    const IPV4_SOURCE: usize = 26;
    const IPV6_SOURCE: usize = 22;
    const IPV6_UDP_CHECKSUM: usize = 60;
    /// What of a frame is written to.
    const IPV4_LENGTH: usize = IPV4_SOURCE + 4;
    const IPV6_LENGTH: usize = IPV6_UDP_CHECKSUM + 2;

    #[xdp]
    fn flood_v4(context: XdpContext) -> u32 {
        let Some((frame, source)) = next(&context, IPV4_LENGTH) else { return XDP_ABORTED };
        // SAFETY: `next` has seen that the frame is that long.
        unsafe {
            *((frame + IPV4_SOURCE) as *mut u32) = source.address[0];
            *((frame + IPV4_CHECKSUM) as *mut u16) = source.checksum;
        }
        send()
    }

    #[xdp]
    fn flood_v6(context: XdpContext) -> u32 {
        let Some((frame, source)) = next(&context, IPV6_LENGTH) else { return XDP_ABORTED };
        // SAFETY: as above.
        unsafe {
            *((frame + IPV6_SOURCE) as *mut u32) = source.address[0];
            *((frame + IPV6_SOURCE + 4) as *mut u32) = source.address[1];
            *((frame + IPV6_SOURCE + 8) as *mut u32) = source.address[2];
            *((frame + IPV6_SOURCE + 12) as *mut u32) = source.address[3];
            *((frame + IPV6_UDP_CHECKSUM) as *mut u16) = source.checksum;
        }
        send()
    }

    #[inline(always)]
    fn next(context: &XdpContext, length: usize) -> Option<(usize, &'static Source)> {
        let frame = context.data();
        if frame + length > context.data_end() {
            return None;
        }
        let turn = TURN.get_ptr_mut(0)?;
        // SAFETY: one sender at a time.
        let turn = unsafe { &mut *turn };
        let number = turn.next;
        turn.next = number.wrapping_add(1);
        if turn.next >= turn.sources {
            turn.next = 0;
        }
        SOURCES.get(number).map(|source| (frame, source))
    }

    #[inline(always)]
    fn send() -> u32 {
        // SAFETY: a volatile read of a constant in a read-only map.
        let interface = unsafe { core::ptr::read_volatile(&raw const INTERFACE) };
        // SAFETY: it takes numbers only.
        unsafe { bpf_redirect(interface, 0) as u32 }
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}
