//! Large bodies through a proxy, up and down, and what they cost it.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::task::spawn_local;

use super::{
    generator::{Connection, Target},
    http::{LARGE_PATH, status},
};
use exogate_tests::notification::RELAY_NAME;

/// The largest body that Exchange takes.
pub const LARGE: usize = 64 << 20;
/// What is written and read at once.
const PART: usize = 64 << 10;

/// Which way the body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// What went through.
pub struct Moved {
    pub bytes: usize,
    pub time: Duration,
    pub processor: Duration,
}

/// Moves bodies for a while, over so many connections.
pub async fn transfer(
    target: &Target,
    way: Way,
    senders: usize,
    time: Duration,
    cpu_time: impl Fn() -> Result<Duration>,
) -> Result<Moved> {
    let bytes = Rc::new(Cell::new(0));
    let (begin, before) = (Instant::now(), cpu_time()?);
    let tasks: Vec<_> = (0..senders)
        .map(|_| {
            let (target, bytes) = (target.clone(), Rc::clone(&bytes));
            spawn_local(async move {
                let mut connection = Connection::open(&target).await?;
                while begin.elapsed() < time {
                    one(&mut connection, way).await?;
                    bytes.set(bytes.get() + LARGE);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(Moved { bytes: bytes.get(), time: begin.elapsed(), processor: cpu_time()? - before })
}

async fn one(connection: &mut Connection, way: Way) -> Result<()> {
    let length = if way == Way::Up { LARGE } else { 0 };
    let method = if way == Way::Up { "POST" } else { "GET" };
    let head = format!(
        "{method} {LARGE_PATH} HTTP/1.1\r\nHost: {RELAY_NAME}\r\nContent-Length: {length}\r\n\r\n"
    );
    connection.write(head.as_bytes()).await?;
    let part = vec![b'x'; PART];
    for _ in 0..length / PART {
        connection.write(&part).await?;
    }
    connection.flush().await?;
    let mut buffer = vec![0; PART];
    let mut filled = 0;
    let head = loop {
        let read = connection.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "the connection ends in a head");
        filled += read;
        if let Some(end) = buffer[..filled].windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    ensure!(status(&buffer[..head])? == 200, "{}", String::from_utf8_lossy(&buffer[..head]));
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let mut left: usize = length.unwrap_or("0").trim().parse::<usize>()? - (filled - head);
    while left > 0 {
        let read = connection.read(&mut buffer).await?;
        ensure!(read > 0, "the connection ends {left} bytes before the end of an answer");
        left -= read;
    }
    Ok(())
}
