//! Polls: begun when they are due, and what becomes of their answers.

use std::sync::Arc;

use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};

use super::{Failure, Keeper, Polled};
use crate::{
    allowlist::{Ask, Collect, Event, PollResult, Problem, Provenance, Publish, Record},
    source::feed::{Collected, Content, FeedId, Revision},
};

impl<C: Collect> Keeper<C> {
    pub(super) fn start_polls(&mut self, polls: &mut JoinSet<Polled>) {
        let now = Instant::now();
        let mut started = false;
        for (id, feed) in &mut self.feeds {
            if feed.due.is_none_or(|due| due > now) {
                continue;
            }
            let Some(held) = self.known.held.get(id) else { continue };
            let source = self.config.source_of(id);
            // What another definition brought is no answer to this one.
            let same = held.definition == source.map(super::super::held::definition);
            let ask = Ask {
                config: self.config.feed.clone(),
                id: id.clone(),
                definition: source.map(|source| source.definition.clone()),
                applied: held.revision.clone().filter(|_| same),
                content: Arc::clone(&held.content),
            };
            tracing::debug!(feed = %id, applied = ?ask.applied, "polling");
            let collector = self.collector.clone();
            let task = polls.spawn(async move { collector.collect(ask).await });
            feed.started(task.id(), (self.clock)());
            started = true;
        }
        if started {
            self.show();
        }
    }

    pub(super) fn finish<P: Publish>(
        &mut self,
        polled: Result<(Id, Polled), JoinError>,
        publisher: &mut P,
    ) {
        let (id, polled) = match polled {
            Ok((id, polled)) => (id, Ok(polled)),
            Err(error) => (error.id(), Err(error)),
        };
        let found = self.feeds.iter().find(|(_, feed)| feed.polling == Some(id));
        // None if a reload has ended the feed meanwhile.
        let Some(id) = found.map(|(id, _)| id.clone()) else { return };
        let mut wait = None;
        let outcome = match polled {
            Ok(Ok(Collected::Unchanged { revision, valid_for })) => {
                wait = valid_for;
                self.offers.remove(&id);
                if self.is_held_back(&id) || self.is_settled(&id, &revision) {
                    Ok(PollResult::Unchanged)
                } else {
                    let held = self.known.held.get(&id);
                    let content = held.map(|held| Arc::clone(&held.content));
                    match content {
                        Some(content) => self
                            .step(&id, Some(revision), content, Event::Applied, publisher)
                            .map(|()| PollResult::Unchanged),
                        None => Ok(PollResult::Unchanged),
                    }
                }
            }
            Ok(Ok(Collected::New { revision, content, valid_for })) => {
                wait = valid_for;
                self.take(&id, revision, content, publisher)
            }
            Ok(Err(error)) => Err(Failure::of(&error)),
            Err(error) => Err(Failure::new("internal", error.to_string())),
        };
        self.conclude(&id, outcome, wait);
        self.show();
    }

    /// Puts an answer in force, or remembers it as an offer.
    fn take<P: Publish>(
        &mut self,
        id: &FeedId,
        revision: Revision,
        content: Content,
        publisher: &mut P,
    ) -> Result<PollResult, Failure> {
        let content = Arc::new(content);
        let result = match self.vet(id, Some(&revision), &content) {
            Err(failure) => Err(failure),
            Ok(()) if self.is_held_back(id) => {
                self.offer(id, revision.clone(), &content, None);
                return Ok(PollResult::Offered);
            }
            Ok(()) => self.step(
                id,
                Some(revision.clone()),
                Arc::clone(&content),
                Event::Applied,
                publisher,
            ),
        };
        match result {
            Ok(()) => {
                self.offers.remove(id);
                Ok(PollResult::Applied)
            }
            Err(failure) => {
                let problem = self.problem_of(&failure);
                self.offer(id, revision, &content, Some(problem));
                Err(failure)
            }
        }
    }

    /// Whether answers of a feed are only to be seen. What an operator accepts
    /// goes through.
    fn is_held_back(&self, id: &FeedId) -> bool {
        self.feeds.get(id).is_some_and(|feed| !feed.accept && (self.known.hold || feed.dry_run))
    }

    /// Whether nothing is left to do for a content that is in force. Files are
    /// looked at often, and a list may be long.
    fn is_settled(&self, id: &FeedId, revision: &Revision) -> bool {
        let definition = self.config.source_of(id).map(super::super::held::definition);
        !self.unsaved
            && self.known.held.get(id).is_some_and(|held| {
                matches!(held.provenance, Provenance::Live { .. })
                    && held.revision.as_ref() == Some(revision)
                    && held.definition == definition
                    && held.pending.is_empty()
            })
    }

    fn problem_of(&self, failure: &Failure) -> Problem {
        Problem {
            at: (self.clock)(),
            reason: failure.reason,
            message: failure.message.clone(),
            can_be_accepted: failure.can_be_accepted,
        }
    }

    fn conclude(
        &mut self,
        id: &FeedId,
        outcome: Result<PollResult, Failure>,
        valid_for: Option<std::time::Duration>,
    ) {
        let now = (self.clock)();
        let interval = self.interval(id);
        // Looking at a file costs nobody anything.
        let is_file = self.config.source_of(id).is_some_and(|s| s.definition.is_read_from_file());
        let random = (self.random)();
        if let Err(failure) = &outcome {
            self.tell_failure(id, failure);
        }
        let problem = outcome.as_ref().err().map(|failure| self.problem_of(failure));
        let Some(feed) = self.feeds.get_mut(id) else { return };
        match outcome {
            Ok(result) => {
                self.metrics.polled(id, result);
                // A time to live is a promise, not a pace: it is kept to.
                let wait = match valid_for {
                    Some(valid_for) => {
                        feed.schedule.after_answer(interval, random);
                        valid_for
                    }
                    None => feed.schedule.after_answer(interval, random),
                };
                feed.succeeded(now, wait);
            }
            Err(failure) => {
                let wait = if failure.published || is_file {
                    feed.schedule.after_answer(interval, random)
                } else {
                    feed.schedule.after_failure(interval, failure.throttled, random)
                };
                if let Some(problem) = problem {
                    feed.failed(now, wait, problem);
                }
            }
        }
    }

    /// The time between polls of a feed.
    pub(super) fn interval(&self, id: &FeedId) -> std::time::Duration {
        let own = self.config.source_of(id).and_then(|source| source.definition.interval());
        own.unwrap_or(self.config.feed.interval)
    }

    fn tell_failure(&self, id: &FeedId, failure: &Failure) {
        let result = if failure.refused {
            self.metrics.refused(id, failure.reason);
            PollResult::Refused
        } else {
            self.metrics.failed(id, failure.reason);
            PollResult::Failed
        };
        self.metrics.polled(id, result);
        let known = self.feeds.get(id).and_then(super::Feed::problem);
        let is_news = known.is_none_or(|problem| problem.message != failure.message);
        if !is_news {
            tracing::debug!(feed = %id, reason = failure.reason, "the problem stays");
            return;
        }
        tracing::warn!(feed = %id, reason = failure.reason,
            "the list in force stays: {}", failure.message);
        if failure.refused {
            self.record(&Record {
                feed: Some(id.to_string()),
                from: self.revision(id),
                to: failure.revision.as_ref().map(ToString::to_string),
                reason: Some(failure.reason.to_owned()),
                message: Some(failure.message.clone()),
                ..Record::new((self.clock)(), Event::Refused, self.list.hash())
            });
        }
    }
}
