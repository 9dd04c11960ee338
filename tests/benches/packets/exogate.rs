//! The program as it is shipped, attached as the agent does it. Beside it runs what of the
//! agent's work a packet can feel: the clock, by which drops are recorded, and the reader of
//! drop events, whom a record wakes. One contender has no reader, to show what waking costs.
//! What recording costs as a whole does not show: a program that records nothing would be
//! another one.

use std::{
    future::pending,
    io,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use exogate::gate::{Attach, DropEvent, Events, Gate, Options, Spares};
use exogate_ebpf::{compile::CompiledTable, verdict::Action};
use exogate_tests::lab::{EDGE_INTERFACE, Family, Lab};
use tokio::{sync::oneshot, time::interval};

use super::{contender::Contender, scope::Kind};
use crate::rig::{List, OTHER_CORE, Share, pin};

/// How long putting a filter in place may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ten times as often as in life, so that each round has its first packets of a second, of
/// which more are recorded.
const TICK: Duration = Duration::from_millis(100);

/// How the program is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// In native mode, as in life.
    Native,
    /// In native mode, and nobody reads the drop events.
    Unread,
    /// In generic mode, else as in life.
    Generic,
}

/// The program as it is shipped.
pub struct Exogate {
    how: Use,
    lab: Lab,
    prefixes: u32,
    table: Option<CompiledTable>,
    attended: Option<Attended>,
}

impl Exogate {
    /// In this lab.
    pub fn new(lab: &Lab, how: Use) -> Self {
        Self { how, lab: lab.clone(), prefixes: 0, table: None, attended: None }
    }
}

impl Contender for Exogate {
    fn name(&self) -> &'static str {
        match self.how {
            Use::Native => "exogate",
            Use::Unread => "exogate, events unread",
            Use::Generic => "exogate, generic",
        }
    }

    fn can(&self, kind: &Kind) -> bool {
        self.how != Use::Unread || kind.prefixes < 1_000 && kind.share != Share::Passed
    }

    fn take(&mut self, list: &List) -> Result<()> {
        self.prefixes = u32::try_from(list.nets().len())?;
        self.table = Some(list.table()?);
        Ok(())
    }

    fn begin(&mut self, _: Family) -> Result<()> {
        let options = Options {
            attach: if self.how == Use::Generic { Attach::Generic } else { Attach::Native },
            capacity: self.prefixes.max(1024),
            pin_directory: self.lab.pin_directory().join("exogate"),
        };
        let table = self.table.as_ref().context("no list was taken")?;
        let open = || async {
            Ok(Gate::open(EDGE_INTERFACE, &options, table, &mut Spares::default()).await?)
        };
        let gate = self.lab.edge().run_async(PATIENCE, open)?;
        self.attended = Some(Attended::start(gate, self.how != Use::Unread));
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some(attended) = self.attended.take() else { return Ok(()) };
        let (gate, read) = attended.stop()?;
        ensure!(self.how == Use::Unread || read > 0 || !drops(&gate)?, "no drop event came");
        Ok(gate.detach()?)
    }
}

/// Whether it has dropped packets.
fn drops(gate: &Gate) -> Result<bool> {
    let counts = gate.program().counts()?;
    Ok(counts.iter().any(|count| count.action == Action::Drop && count.packets > 0))
}

/// A gate whose clock ticks, on a thread of its own.
struct Attended {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(Gate, u64)>>,
}

impl Attended {
    fn start(mut gate: Gate, reads: bool) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            pin(0, OTHER_CORE)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let read = runtime.block_on(attend(&mut gate, reads, stopped))?;
            anyhow::Ok((gate, read))
        });
        Self { stop, thread }
    }

    /// The gate, and how many events were read.
    fn stop(self) -> Result<(Gate, u64)> {
        // Nobody listens if the thread has ended; its error comes out here.
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| anyhow!("a thread panicked"))?
    }
}

async fn attend(gate: &mut Gate, reads: bool, mut stopped: oneshot::Receiver<()>) -> Result<u64> {
    let mut events = if reads { Some(gate.events()?) } else { None };
    let mut clock = interval(TICK);
    let (mut now, mut read) = (0, 0);
    loop {
        tokio::select! {
            _ = &mut stopped => return Ok(read),
            _ = clock.tick() => {
                now += 1;
                gate.program().tick(now);
            }
            event = next(&mut events) => {
                event?;
                read += 1;
            }
        }
    }
}

async fn next(events: &mut Option<Events>) -> io::Result<DropEvent> {
    match events {
        Some(events) => events.next().await,
        None => pending().await,
    }
}
