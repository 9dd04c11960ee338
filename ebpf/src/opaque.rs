//! Keeping the optimiser from rewriting what the kernel's verifier must see.

/// The value itself, of which the optimiser no longer knows anything.
///
/// BPF has no conditional move, so a comparison that the optimiser recognises
/// becomes a branch; and the verifier understands only some forms of a bounds
/// check.
#[inline(always)]
#[must_use]
pub fn opaque(value: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // A real instruction, if an idle one: the kernel refuses line information
        // that puts two source lines on one instruction.
        // SAFETY: it moves a register to itself.
        unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    value
}

/// The bits of a number that are in a mask, cut off where it is used: as an index that the
/// verifier can see the bounds of.
///
/// The optimiser leaves a mask out, or moves it, once it knows the bounds itself. The
/// verifier knows less: of a byte swap nothing, and before Linux 6.10 (138cc42c05d1,
/// "bpf/verifier: improve XOR and OR range computation") nothing of an or of two unknown
/// numbers either. Then the program does not load.
#[inline(always)]
#[must_use]
pub fn masked<const MASK: u32>(value: u64) -> usize {
    // It is signed in the instruction.
    const { assert!(MASK <= i32::MAX as u32) }
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: it changes a register.
        unsafe {
            core::arch::asm!(
                "{0} &= {mask}", inout(reg) value, mask = const MASK, options(pure, nomem, nostack)
            )
        };
        value as usize
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        value as usize & MASK as usize
    }
}
