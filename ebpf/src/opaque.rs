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
