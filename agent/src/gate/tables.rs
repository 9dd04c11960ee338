//! Two tables in one preallocated map, one live and one idle.
//!
//! A publish copies the compiled table into the idle half through a memory
//! mapping and then switches [`Control::live`] with one store. It creates no map
//! and makes no system call that needs a capability.
//!
//! The idle half may still be read by a CPU that took the old value of `live`
//! just before the last switch. XDP programs run inside an RCU read section, so
//! `membarrier(2)`'s global command, which waits for a grace period, is run
//! before the half is written.

use std::{
    io,
    mem::offset_of,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use exogate_ebpf::{
    abi::{Control, Line},
    compile,
};

use crate::gate::Error;

/// A half of the map begins at a page, so that it can be mapped by itself.
const LINES_PER_PAGE: u32 = 64;

/// Lines of one half of the table map: enough for `prefixes` prefixes, and for
/// the table that is to be published first.
pub(crate) fn lines_for(prefixes: u32, table: &[Line]) -> Result<u32, Error> {
    let capacity = compile::lines_for(prefixes).next_multiple_of(LINES_PER_PAGE);
    check(table, capacity)?;
    Ok(capacity.saturating_mul(2))
}

fn check(table: &[Line], capacity: u32) -> Result<(), Error> {
    if table.len() > capacity as usize {
        return Err(Error::TableFull { needed: table.len(), capacity: capacity as usize });
    }
    Ok(())
}

/// A mapping of part of a map, shared with the kernel.
struct Mapping {
    start: NonNull<libc::c_void>,
    bytes: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: shared access goes through atomics only (`ControlPage`).
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(map: BorrowedFd<'_>, offset: usize, bytes: usize) -> Result<Self, Error> {
        let failed = |source| Error::Memory { action: "mapping a BPF map into memory", source };
        let offset = libc::off_t::try_from(offset)
            .map_err(|_| failed(io::Error::from_raw_os_error(libc::EOVERFLOW)))?;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                offset,
            )
        };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Self { start, bytes }),
            _ => Err(failed(io::Error::last_os_error())),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `new` and nothing points into it any
        // more.
        unsafe { libc::munmap(self.start.as_ptr(), self.bytes) };
    }
}

/// [`Control`] as both sides see it at once.
#[repr(C)]
struct SharedControl {
    live: AtomicU32,
    epoch: AtomicU32,
}

const _: () = {
    assert!(size_of::<SharedControl>() == size_of::<Control>());
    assert!(offset_of!(SharedControl, live) == offset_of!(Control, live));
    assert!(offset_of!(SharedControl, epoch) == offset_of!(Control, epoch));
};

/// The one [`Control`] element, mapped for the life of the gate.
pub(crate) struct ControlPage(Mapping);

impl ControlPage {
    /// Maps the control map.
    pub(crate) fn new(map: BorrowedFd<'_>) -> Result<Self, Error> {
        Mapping::new(map, 0, size_of::<Control>()).map(Self)
    }

    /// First line of the live table.
    fn live(&self) -> &AtomicU32 {
        &self.control().live
    }

    /// The clock that the program reads, in seconds.
    pub(crate) fn set_epoch(&self, seconds: u32) {
        self.control().epoch.store(seconds, Ordering::Relaxed);
    }

    fn control(&self) -> &SharedControl {
        let Self(mapping) = self;
        // SAFETY: the mapping holds one page-aligned `Control`, two words that
        // both sides access whole, and lives as long as the reference.
        unsafe { mapping.start.cast::<SharedControl>().as_ref() }
    }
}

/// Puts a table in force. `lines` is the size of the whole map.
pub(crate) fn publish(
    map: BorrowedFd<'_>,
    lines: u32,
    control: &ControlPage,
    table: &[Line],
) -> Result<(), Error> {
    let half = lines / 2;
    check(table, half)?;
    let idle = if control.live().load(Ordering::Acquire) == 0 { half } else { 0 };
    wait_for_readers()?;
    let mapping = Mapping::new(
        map,
        (idle as usize).saturating_mul(size_of::<Line>()),
        (half as usize).saturating_mul(size_of::<Line>()),
    )?;
    // SAFETY: the mapping holds `half` lines and the check above keeps the table
    // within it. No program reads this half: it is not live, and every reader
    // that took it for live has finished.
    let target =
        unsafe { slice::from_raw_parts_mut(mapping.start.as_ptr().cast::<Line>(), table.len()) };
    target.copy_from_slice(table);
    control.live().store(idle, Ordering::Release);
    Ok(())
}

/// The table in force, copied.
pub(crate) fn live(
    map: BorrowedFd<'_>,
    lines: u32,
    control: &ControlPage,
) -> Result<Vec<Line>, Error> {
    let half = lines / 2;
    let live = control.live().load(Ordering::Acquire);
    let mapping = Mapping::new(
        map,
        (live as usize).saturating_mul(size_of::<Line>()),
        (half as usize).saturating_mul(size_of::<Line>()),
    )?;
    // SAFETY: the mapping holds `half` lines, and only this process writes them.
    let all =
        unsafe { slice::from_raw_parts(mapping.start.as_ptr().cast::<Line>(), half as usize) };
    let used = all.first().map_or(0, |header| header.word(exogate_ebpf::table::header::LINES));
    Ok(all.get(..used as usize).unwrap_or(all).to_vec())
}

/// Waits until every CPU has left the XDP programs that it is in.
fn wait_for_readers() -> Result<(), Error> {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    match source.raw_os_error() {
        // Not offered with CONFIG_MEMBARRIER=n or nohz_full. An XDP program runs
        // for microseconds with interrupts' bottom halves off, so a second is
        // ample.
        Some(libc::EINVAL | libc::ENOSYS) => {
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        }
        _ => Err(Error::Memory { action: "waiting for readers (membarrier)", source }),
    }
}
