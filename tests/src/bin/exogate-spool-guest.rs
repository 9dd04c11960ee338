//! What a guest whose power is cut does until then: several writers append to a
//! spool and say on the console what was acknowledged; half of it is delivered.
//!
//! `exogate-spool-guest DIRECTORY WRITERS`. The host is `tests/tests/power.rs`.

use std::{env, io::Write, path::Path, sync::Arc};

use anyhow::{Context, Result};
use exogate::{
    config,
    relay::spool::{Appended, Message, NewRecord, Spool, disk::DiskSpool, metrics::Metrics},
};
use exogate_tests::spooled;
use prometheus::Registry;

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let directory = arguments.next().context("no directory is given")?;
    let writers: usize = arguments.next().context("no number of writers is given")?.parse()?;
    let metrics = Metrics::register(&Registry::new())?;
    let spool = DiskSpool::open(&config::Spool::default(), Path::new(&directory), metrics)?;
    let spool = Arc::new(spool);
    say("ready");
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..writers {
        tasks.spawn(append(Arc::clone(&spool)));
    }
    tasks.spawn(deliver(spool));
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn append(spool: Arc<DiskSpool>) -> Result<()> {
    loop {
        let body = spooled::body();
        let digest = spooled::digest(&body);
        let message = Message {
            route: "graph".to_owned(),
            target: "/notify".to_owned(),
            headers: Vec::new(),
            source: None,
            body: body.into(),
        };
        let record = NewRecord { message, lanes: vec!["lane".to_owned()], once: None };
        if let Appended::Stored(id) = spool.append(record).await? {
            say(&format!("ack {id} {digest}"));
        }
    }
}

async fn deliver(spool: Arc<DiskSpool>) -> Result<()> {
    loop {
        let entry = spool.next().await?;
        if entry.sequence.is_multiple_of(2) {
            say(&format!("delivering {}", entry.id));
            spool.delivered(&entry).await?;
            say(&format!("delivered {}", entry.id));
        }
    }
}

/// One write for each line: what was cut off has no end.
fn say(line: &str) {
    let _ = std::io::stdout().write_all(format!("{line} .\n").as_bytes());
}
