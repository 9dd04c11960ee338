//! Who may attach: one thread, and no longer than it has to.
//!
//! Loading and attaching need capabilities. The threads that read packets' reports,
//! answers of others and requests do not. So before the runtime starts, [`Attacher`]
//! takes the capabilities to a thread of its own, which opens gates and does nothing
//! else, and the thread that all others descend from gives them up.
//!
//! With `privileges = "drop"` that thread ends as soon as every interface is filtered,
//! and nothing in the process can attach any more. With `"keep"` it waits for
//! interfaces that come back, with a few programs that are verified already. Threads share
//! their memory: what "keep" leaves is safe from a mistake, not from somebody who runs code
//! of his own in the process.
//!
//! Before Linux 5.19 the kernel wants CAP_BPF for the use of maps too; there every
//! thread keeps it. A process of root keeps what opens files of others and low ports,
//! because it would be without what root is expected to have.
//!
//! Where the kernel refuses to take capabilities away the agent does not start.

use std::{io, sync::Arc, thread};

use caps::{CapSet, Capability, CapsHashSet};
use exogate_ebpf::compile::CompiledTable;
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};

use crate::gate::{self, Gate, Options, Spares};

/// What opens files and ports. No others but root have it.
const OPENING: [Capability; 5] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_NET_BIND_SERVICE,
];

/// The thread that may attach.
pub struct Attacher(Option<Running>);

struct Running {
    requests: mpsc::Sender<Request>,
    thread: thread::JoinHandle<()>,
}

enum Request {
    Open {
        interface: String,
        options: Options,
        table: Arc<CompiledTable>,
        done: oneshot::Sender<Result<Gate, gate::Error>>,
    },
    Prepare(Options),
}

impl Attacher {
    /// Starts the thread, and takes the capabilities from the calling one. To be called
    /// while there is no other thread: each has its own.
    ///
    /// # Errors
    ///
    /// If there can be no thread, or the kernel refuses.
    pub fn start() -> io::Result<Self> {
        gate::bound_heaps();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (requests, mut asked) = mpsc::channel(1);
        let thread = thread::Builder::new().name("exogate-attach".to_owned()).spawn(move || {
            let mut spares = Spares::default();
            // How to make those that may be missing.
            let mut wanted = None;
            runtime.block_on(async {
                loop {
                    // An interface that is there goes before those that may come.
                    let request = match asked.try_recv() {
                        Err(TryRecvError::Empty) if wanted.is_none() => {
                            gate::give_back();
                            asked.recv().await
                        }
                        request => request.ok(),
                    };
                    match request {
                        Some(Request::Open { interface, options, table, done }) => {
                            let gate = Gate::open(&interface, &options, &table, &mut spares).await;
                            // Nobody waits if the agent is about to end.
                            let _ = done.send(gate);
                        }
                        Some(Request::Prepare(options)) => wanted = Some(options),
                        None if asked.is_closed() => break,
                        None => wanted = wanted.filter(|options| spares.prepare(options)),
                    }
                }
            });
        })?;
        give_up().map_err(io::Error::other)?;
        Ok(Self(Some(Running { requests, thread })))
    }

    /// Opens a gate; nothing if the right to do so was given up.
    pub(super) async fn open(
        &self,
        interface: &str,
        options: Options,
        table: &Arc<CompiledTable>,
    ) -> Option<Result<Gate, gate::Error>> {
        let Self(Some(running)) = self else { return None };
        let (done, outcome) = oneshot::channel();
        let (interface, table) = (interface.to_owned(), Arc::clone(table));
        let request = Request::Open { interface, options, table, done };
        running.requests.send(request).await.ok()?;
        outcome.await.ok()
    }

    /// Has a program made ready for the next interface, when there is nothing else to do.
    pub(super) fn prepare(&self, options: Options) {
        if let Self(Some(running)) = self {
            // A request that waits already is no less than this one.
            let _ = running.requests.try_send(Request::Prepare(options));
        }
    }

    /// Whether there is a thread that may attach.
    pub(super) fn may_attach(&self) -> bool {
        let Self(running) = self;
        running.is_some()
    }

    /// Gives up the right to attach.
    pub(super) fn retire(&mut self) {
        let Self(running) = self;
        let Some(Running { requests, thread }) = running.take() else { return };
        drop(requests);
        if thread.join().is_err() {
            tracing::error!("the thread that attached the filter ended badly");
        }
    }
}

/// Takes from the calling thread what only attaching needs.
fn give_up() -> Result<(), caps::errors::CapsError> {
    let mut kept = CapsHashSet::from(OPENING);
    if !gate::works_without_capabilities() {
        kept.insert(Capability::CAP_BPF);
    }
    let held = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = held.intersection(&kept).copied().collect();
    // In this order: what is in force must be permitted, and what is ambient too.
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}
