//! Two tables in one preallocated map, one live and one idle.
//!
//! A publish copies the compiled table's lines into the idle half through a
//! memory mapping, its head beside the live one, and then switches
//! [`Control::live`] with one store. It creates no map and makes no system call
//! that needs a capability.
//!
//! The idle table may still be read by a CPU that took the old value of `live`
//! just before the last switch. XDP programs run inside an RCU read section, so
//! `membarrier(2)`'s global command, which waits for a grace period, is run
//! before the half is written. Tables that no packet was judged by yet have no readers.

use std::{
    cell::UnsafeCell,
    io,
    mem::offset_of,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use exogate_ebpf::{
    abi::{Control, Head, Line},
    compile::{self, CompiledTable},
    table::flag,
};

use crate::{boot, gate::Error};

/// A half of the map begins at a page, so that it can be mapped by itself.
const LINES_PER_PAGE: u32 = 64;

/// Lines of one half of the table map: enough for `prefixes` prefixes, and for
/// the table that is to be published first.
pub(crate) fn lines_for(prefixes: u32, table: Option<&CompiledTable>) -> Result<u32, Error> {
    let capacity = compile::lines_for(prefixes).next_multiple_of(LINES_PER_PAGE);
    if let Some(table) = table {
        check(table, capacity)?;
    }
    Ok(capacity.saturating_mul(2))
}

fn check(table: &CompiledTable, capacity: u32) -> Result<(), Error> {
    let needed = table.lines.len();
    if needed > capacity as usize {
        return Err(Error::TableFull { needed, capacity: capacity as usize });
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
    words: SharedWords,
    heads: [UnsafeCell<Head>; 2],
}

const _: () = {
    assert!(size_of::<SharedControl>() == size_of::<Control>());
    assert!(offset_of!(SharedControl, heads) == offset_of!(Control, heads));
};

/// The words before the heads.
#[repr(C)]
struct SharedWords {
    live: AtomicU32,
    epoch: AtomicU32,
}

const _: () = {
    assert!(offset_of!(SharedWords, live) == offset_of!(Control, live));
    assert!(offset_of!(SharedWords, epoch) == offset_of!(Control, epoch));
};

/// The beginning of the one [`Control`] element, mapped for the life of the gate. The heads
/// behind it are mapped while a table is put in force or read: they are more than a
/// megabyte, and would count as the process's own memory.
pub(crate) struct ControlPage(Mapping);

impl ControlPage {
    /// Maps what is needed all the time of the control map.
    pub(crate) fn new(map: BorrowedFd<'_>) -> Result<Self, Error> {
        Mapping::new(map, 0, size_of::<SharedWords>()).map(Self)
    }

    /// Sets the clock that the program reads, in seconds.
    pub(crate) fn set_epoch(&self, seconds: u32) {
        self.shared().epoch.store(seconds, Ordering::Relaxed);
    }

    /// The number of the table in force.
    fn live(&self) -> usize {
        (self.shared().live.load(Ordering::Acquire) & 1) as usize
    }

    /// The head of the table in force, copied.
    fn head(&self, map: BorrowedFd<'_>) -> Result<Box<Head>, Error> {
        let whole = WholeControl::new(map)?;
        let [first, second] = whole.heads();
        let head = if self.live() == 0 { first } else { second };
        // SAFETY: nobody writes the live head, and to publish takes `&mut self`.
        Ok(Box::new(unsafe { *head.get() }))
    }

    /// Puts the idle table in force with this head, whose lines begin at `base`.
    fn switch(&mut self, map: BorrowedFd<'_>, head: &Head, base: u32) -> Result<(), Error> {
        let whole = WholeControl::new(map)?;
        let [first, second] = whole.heads();
        let (idle, target) = if self.live() == 0 { (1, second) } else { (0, first) };
        // SAFETY: no program reads the idle head (`publish` has waited), and `&mut self`
        // keeps this process from reading it.
        let target = unsafe { &mut *target.get() };
        target.clone_from(head);
        target.base = base;
        self.shared().live.store(idle, Ordering::Release);
        Ok(())
    }

    fn shared(&self) -> &SharedWords {
        let Self(mapping) = self;
        // SAFETY: the mapping begins with the words of a `Control` of the same layout
        // and lives as long as the reference. Both sides access them whole.
        unsafe { mapping.start.cast::<SharedWords>().as_ref() }
    }
}

/// All of the [`Control`] element.
struct WholeControl(Mapping);

impl WholeControl {
    fn new(map: BorrowedFd<'_>) -> Result<Self, Error> {
        Mapping::new(map, 0, size_of::<Control>()).map(Self)
    }

    fn heads(&self) -> &[UnsafeCell<Head>; 2] {
        let Self(mapping) = self;
        // SAFETY: the mapping holds one page-aligned `Control` of the same layout
        // and lives as long as the reference.
        &unsafe { mapping.start.cast::<SharedControl>().as_ref() }.heads
    }
}

/// The maps that tables lie in, and the lines that the first one has.
#[derive(Clone, Copy)]
pub(crate) struct Maps<'a> {
    pub(crate) tables: BorrowedFd<'a>,
    pub(crate) lines: u32,
    pub(crate) control: BorrowedFd<'a>,
}

/// Puts a table in force. `in_use` says whether there may be readers to wait for.
pub(crate) fn publish(
    maps: Maps<'_>,
    control: &mut ControlPage,
    in_use: bool,
    table: &CompiledTable,
) -> Result<(), Error> {
    let half = maps.lines / 2;
    check(table, half)?;
    let base = if control.live() == 0 { half } else { 0 };
    if in_use {
        wait_for_readers()?;
    }
    let mapping = map_half(maps.tables, base, half)?;
    // SAFETY: the mapping holds `half` lines and the check above keeps the table
    // within it. No program reads this half: it is not live, and every reader
    // that took it for live has finished.
    let target = unsafe {
        slice::from_raw_parts_mut(mapping.start.as_ptr().cast::<Line>(), table.lines.len())
    };
    target.copy_from_slice(&table.lines);
    control.switch(maps.control, &table.head, base)
}

/// The table in force, copied.
pub(crate) fn live(maps: Maps<'_>, control: &ControlPage) -> Result<CompiledTable, Error> {
    let mut head = control.head(maps.control)?;
    let half = maps.lines / 2;
    let mapping = map_half(maps.tables, head.base, half)?;
    let used = head.lines.min(half) as usize;
    // SAFETY: the mapping holds `half` lines, and only this process writes them.
    let lines = unsafe { slice::from_raw_parts(mapping.start.as_ptr().cast::<Line>(), used) };
    head.base = 0;
    Ok(CompiledTable { head, lines: lines.to_vec() })
}

/// Whether the table in force drops what is refused, also what is only passing through.
pub(crate) fn drops_everywhere(control: BorrowedFd<'_>) -> Result<bool, Error> {
    let head = ControlPage::new(control)?.head(control)?;
    let is_in_time = head.deadline == 0 || boot::now() < head.deadline;
    Ok(is_in_time && head.flags & flag::ENFORCE != 0 && head.flags & flag::DESTINATIONS == 0)
}

fn map_half(map: BorrowedFd<'_>, base: u32, lines: u32) -> Result<Mapping, Error> {
    let bytes = |lines: u32| (lines as usize).saturating_mul(size_of::<Line>());
    Mapping::new(map, bytes(base), bytes(lines))
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
