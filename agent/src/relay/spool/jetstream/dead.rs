//! Dead letters: a stream of their own, with one subject each.
//!
//! A record changes streams by being published to the other one first and removed
//! from its own then. A crash in between leaves it in both: a burial that is
//! repeated takes the place of the first, and a replay that is repeated finds that
//! the record waits already.

use async_nats::jetstream::message::StreamMessage;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    super::{DeadLetter, Death, Entry, Error, RecordId, Selection},
    Inner, append,
    record::{self, id_of},
    servers::{failed, is_missing},
};

/// Dead letters that are asked for at once.
const AT_ONCE: usize = 16;

impl Inner {
    pub(super) async fn bury_record(&self, entry: &Entry, death: Death) -> Result<(), Error> {
        let message = match self.servers.waiting.get_raw_message(entry.sequence).await {
            Ok(message) => message,
            Err(error) if is_missing(&error) => {
                self.is_gone(entry.sequence).await?;
                return Err(Error::Unknown(entry.id));
            }
            Err(error) => return Err(failed("a record cannot be read", error)),
        };
        let size = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
        let mut headers = record::revive(&message.headers);
        record::bury(&mut headers, death)?;
        let route = token(&entry.route);
        let subject = format!("{}.dead.{route}.{}", self.servers.prefix, entry.id);
        let publish = self.servers.context.publish_with_headers(subject, headers, message.payload);
        match publish.await {
            Ok(ack) => ack.await.map_err(|error| append::refusal(&error))?,
            Err(error) => return Err(append::refusal(&error)),
        };
        self.room.buried(&route, size);
        self.take_out(entry).await
    }

    /// Removes a record from those that wait. It is no error if it is not there.
    pub(super) async fn take_out(&self, entry: &Entry) -> Result<(), Error> {
        self.servers.remove(&self.servers.waiting, entry.sequence).await?;
        self.queue.remove(entry.sequence);
        self.room.removed(entry.size);
        Ok(())
    }

    pub(super) async fn list(
        &self,
        selection: &Selection,
        after: Option<RecordId>,
        most: usize,
    ) -> Result<Vec<DeadLetter>, Error> {
        let mut subjects = self.subjects(selection).await?;
        subjects.retain(|(id, _)| after.is_none_or(|after| *id > after));
        subjects.truncate(most);
        let letters = stream::iter(subjects).map(|(id, subject)| async move {
            let Some(message) = self.letter(&subject).await? else { return Ok(None) };
            match record::dead_letter(&self.sealer, id, &message.headers) {
                Ok(letter) => Ok(Some(letter)),
                Err(error) => {
                    tracing::warn!(%error, "a dead letter is left out of a list");
                    Ok(None)
                }
            }
        });
        letters
            .buffered(AT_ONCE)
            .try_filter_map(|letter| async move { Ok(letter) })
            .try_collect()
            .await
    }

    pub(super) async fn replay_all(&self, selection: &Selection) -> Result<u64, Error> {
        let mut replayed = 0_u64;
        for (id, subject) in self.subjects(selection).await? {
            let Some(message) = self.letter(&subject).await? else { continue };
            let size = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
            let headers = record::revive(&message.headers);
            let published =
                append::publish(&self.servers, id, &headers, &message.payload, true).await?;
            if let append::Published::Stored(sequence) = published {
                self.room.appended(size);
                let subject = format!("{}.waiting.{id}", self.servers.prefix);
                let entry =
                    record::Reader::default().entry(&self.sealer, &subject, sequence, &headers);
                entry.into_iter().for_each(|entry| self.queue.appended(entry));
            }
            self.servers.remove(&self.servers.dead, message.sequence).await?;
            replayed = replayed.saturating_add(1);
        }
        self.room.recount(&self.servers).await?;
        Ok(replayed)
    }

    pub(super) async fn purge_all(&self, selection: &Selection) -> Result<u64, Error> {
        // One by one: a purge of the stream would not overwrite what is on the disks.
        let purged = stream::iter(self.subjects(selection).await?)
            .map(|(_, subject)| async move {
                let Some(message) = self.letter(&subject).await? else { return Ok(0) };
                self.servers.remove(&self.servers.dead, message.sequence).await.map(|()| 1_u64)
            })
            .buffer_unordered(AT_ONCE)
            .try_fold(0_u64, |all, one| async move { Ok(all.saturating_add(one)) })
            .await?;
        self.room.recount(&self.servers).await?;
        Ok(purged)
    }

    /// The message of a dead letter.
    pub(super) async fn dead_message(&self, id: RecordId) -> Result<Option<StreamMessage>, Error> {
        match self.subjects(&Selection::One(id)).await?.first() {
            Some((_, subject)) => self.letter(subject).await,
            None => Ok(None),
        }
    }

    /// Identities and subjects of dead letters, the oldest record first.
    async fn subjects(&self, selection: &Selection) -> Result<Vec<(RecordId, String)>, Error> {
        let filter = match selection {
            Selection::All => "*.*".to_owned(),
            Selection::Route(route) => format!("{}.*", token(route)),
            Selection::One(id) => format!("*.{id}"),
        };
        let problem = |error| failed("the list of dead letters", error);
        let filter = format!("{}.dead.{filter}", self.servers.prefix);
        let subjects = self.servers.dead.info_with_subjects(filter).await.map_err(problem)?;
        let mut found: Vec<_> = subjects
            .try_filter_map(
                |(subject, _)| async move { Ok(id_of(&subject).map(|id| (id, subject))) },
            )
            .try_collect()
            .await
            .map_err(problem)?;
        found.sort_unstable();
        Ok(found)
    }

    async fn letter(&self, subject: &str) -> Result<Option<StreamMessage>, Error> {
        match self.servers.dead.get_last_raw_message_by_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(failed("a dead letter cannot be read", error)),
        }
    }
}

/// A route as a part of a subject. Configured names are that already.
fn token(route: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    if route.is_empty() { "_".to_owned() } else { route.chars().map(word).collect() }
}
