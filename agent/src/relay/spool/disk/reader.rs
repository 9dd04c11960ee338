//! The one thread that reads, beside the one that writes and never in its way.

use std::sync::{Arc, mpsc::Receiver};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    super::{DeadLetter, Error, Message, RecordId, Selection},
    Shared, database,
    queue::Gap,
    statements::{self, failure},
};

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What is to be read.
pub(super) enum Job {
    /// What is missing in the window.
    Page(Gap),
    /// A message.
    Message(RecordId, Reply<Message>),
    /// Whether a digest is known.
    IsMarked([u8; 32], Reply<bool>),
    /// Dead letters.
    Dead(Selection, Option<RecordId>, usize, Reply<Vec<DeadLetter>>),
    /// Finish.
    Close(Reply<()>),
}

/// The thread's own.
pub(super) struct Reader {
    /// None after a failure: it is opened anew for the next job.
    pub(super) connection: Option<Connection>,
    pub(super) database: std::path::PathBuf,
    pub(super) shared: Arc<Shared>,
    pub(super) jobs: Receiver<Job>,
}

impl Reader {
    /// Works until it is told to close, or nobody can tell it anything any more.
    pub(super) fn run(mut self) {
        while let Ok(job) = self.jobs.recv() {
            let shared = Arc::clone(&self.shared);
            let sealer = &shared.sealer;
            match job {
                Job::Page(gap) => {
                    let page = self.read("cannot read what waits", |connection| {
                        statements::page(connection, sealer, gap)
                    });
                    shared.queue.loaded(gap, page);
                }
                Job::Message(id, reply) if !reply.is_closed() => {
                    let sealed = self.read("cannot read a message", |connection| {
                        statements::message(connection, id)
                    });
                    let message = sealed.and_then(|sealed| {
                        sealer.open_message(id, sealed.ok_or(Error::Unknown(id))?)
                    });
                    let _ = reply.send(message);
                }
                Job::IsMarked(digest, reply) => {
                    let _ = reply.send(self.read("cannot look up a fact", |connection| {
                        statements::is_marked(connection, &digest)
                    }));
                }
                Job::Dead(selection, after, most, reply) => {
                    let _ = reply.send(self.read("cannot list dead letters", |connection| {
                        statements::dead(connection, sealer, &selection, after, most)
                    }));
                }
                Job::Close(reply) => {
                    self.connection = None;
                    let _ = reply.send(Ok(()));
                    return;
                }
                Job::Message(..) => {}
            }
        }
    }

    fn read<T>(
        &mut self,
        tried: &str,
        read: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                database::open_to_read(&self.database).map_err(|error| failure(tried, &error))?
            }
        };
        let found = read(&connection).map_err(|error| {
            tracing::error!(database = %self.database.display(), %error, "{tried}");
            failure(tried, &error)
        })?;
        self.connection = Some(connection);
        Ok(found)
    }
}
