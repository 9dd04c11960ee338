//! The bare disk: what no store can exceed that makes every record durable.

use std::{
    fs::{self, File},
    io::{Seek, Write},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

/// Batches that a file has room for.
const ROOM: u32 = 256;

/// Records per second, when each of `writers` waits for its record of `size` bytes to be
/// durable before it writes the next one, and one flush makes those of all durable. The
/// file has its size already and is overwritten, which costs a file system the least.
pub fn limit(directory: &Path, writers: usize, size: usize, time: Duration) -> Result<f64> {
    let path = directory.join("bare");
    let mut file = File::create(&path)?;
    let batch = vec![0x5a; writers * size];
    for _ in 0..ROOM {
        file.write_all(&batch)?;
    }
    file.sync_all()?;
    let begin = Instant::now();
    let mut flushes = 0;
    while begin.elapsed() < time {
        if flushes % ROOM == 0 {
            file.rewind()?;
        }
        file.write_all(&batch)?;
        file.sync_data()?;
        flushes += 1;
    }
    let rate = f64::from(flushes) * writers as f64 / begin.elapsed().as_secs_f64();
    fs::remove_file(&path)?;
    Ok(rate)
}
