//! The pace and the condition of one feed.

use std::time::Duration;

use jiff::Timestamp;
use tokio::{task::Id, time::Instant};

use crate::{
    allowlist::{FeedStatus, Held, Problem, schedule::Schedule},
    source::feed::FeedId,
};

pub(super) struct Feed {
    /// The next poll; none while one is under way.
    pub(super) due: Option<Instant>,
    /// The poll under way.
    pub(super) polling: Option<Id>,
    pub(super) schedule: Schedule,
    /// The operator accepts an improbable answer.
    pub(super) accept: bool,
    /// The operator only wants to see the answer.
    pub(super) dry_run: bool,
    /// Another poll was asked for during this one.
    again: bool,
    last_success: Option<Timestamp>,
    last_attempt: Option<Timestamp>,
    next_attempt: Option<Timestamp>,
    problem: Option<Problem>,
}

impl Feed {
    pub(super) fn new(delay: Duration, now: Timestamp) -> Self {
        let mut feed = Self {
            due: None,
            polling: None,
            schedule: Schedule::default(),
            accept: false,
            dry_run: false,
            again: false,
            last_success: None,
            last_attempt: None,
            next_attempt: None,
            problem: None,
        };
        feed.wait(now, delay);
        feed
    }

    pub(super) fn poll_now(&mut self) {
        if self.polling.is_some() {
            self.again = true;
        } else {
            self.due = Some(Instant::now());
        }
    }

    pub(super) fn started(&mut self, id: Id, now: Timestamp) {
        self.polling = Some(id);
        self.due = None;
        self.next_attempt = None;
        self.last_attempt = Some(now);
    }

    pub(super) fn succeeded(&mut self, now: Timestamp, wait: Duration) {
        self.last_success = Some(now);
        self.problem = None;
        self.accept = false;
        self.wait(now, wait);
    }

    pub(super) fn failed(&mut self, now: Timestamp, wait: Duration, problem: Problem) {
        self.problem = Some(problem);
        // What was accepted was this answer, not a later one.
        self.accept &= self.again;
        self.wait(now, wait);
    }

    pub(super) const fn problem(&self) -> Option<&Problem> {
        self.problem.as_ref()
    }

    fn wait(&mut self, now: Timestamp, wait: Duration) {
        self.polling = None;
        self.dry_run &= self.again;
        let wait = if std::mem::take(&mut self.again) { Duration::ZERO } else { wait };
        self.due = Instant::now().checked_add(wait);
        self.next_attempt = now.checked_add(wait).ok();
    }

    pub(super) fn status(&self, id: &FeedId, held: &Held, interval: Duration) -> FeedStatus {
        FeedStatus {
            id: id.clone(),
            provenance: held.provenance.clone(),
            revision: held.revision.clone(),
            interval,
            last_success: self.last_success,
            last_attempt: self.last_attempt,
            next_attempt: self.next_attempt,
            problem: self.problem.clone(),
            pending_removals: held.pending.clone(),
        }
    }
}
