//! How far it is, for those who wait.

use std::time::{Duration, Instant};

/// What is done, and what is left.
pub struct Progress {
    begin: Instant,
    /// What was spent in lists that contenders took. That is not known of those to come.
    filling: Duration,
    done: usize,
    all: usize,
}

impl Progress {
    /// So many measurements are to come.
    pub fn new(all: usize) -> Self {
        Self { begin: Instant::now(), filling: Duration::ZERO, done: 0, all }
    }

    /// Contenders took a list for so long.
    pub fn filled(&mut self, time: Duration) {
        self.filling += time;
    }

    /// So many measurements more are done.
    pub fn measured(&mut self, count: usize) {
        self.done += count;
        let each = (self.begin.elapsed() - self.filling).as_secs_f64() / self.done as f64;
        let left = self.all.saturating_sub(self.done) as f64 * each;
        eprintln!(
            "{} of {} measurements in {:.1} minutes; {:.1} more, and what filling long lists takes",
            self.done,
            self.all,
            self.minutes(),
            left / 60.0
        );
    }

    /// Since the beginning.
    pub fn minutes(&self) -> f64 {
        self.begin.elapsed().as_secs_f64() / 60.0
    }
}
