//! Something that goes on while something else is measured.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Result, anyhow};

/// Does `work`, and beside it `other` on a thread of its own, which ends when it is told to.
pub fn meanwhile<T, U: Send>(
    other: impl FnOnce(&AtomicBool) -> Result<U> + Send,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, U)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let other = scope.spawn(|| other(&stop));
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let other = other.join().map_err(|_| anyhow!("a thread panicked"))??;
        Ok((done?, other))
    })
}
