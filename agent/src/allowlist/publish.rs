//! Putting a list in force.

use std::{fmt, sync::Arc};

use super::AllowList;
use crate::config::Config;

/// Who puts a list in force: the gate, in production.
pub trait Publish {
    /// Why it could not.
    type Error: fmt::Display;

    /// Puts the list in force, with the guards and the mode of the configuration
    /// that it was made from. Enforcing ends at the deadline, if there is one, in nanoseconds
    /// since the boot. It blocks for milliseconds.
    ///
    /// # Errors
    ///
    /// If the list could not be put in force. The one before still is, then, and
    /// nothing of the new one is remembered: the next poll brings it again.
    fn publish(
        &mut self,
        list: &Arc<AllowList>,
        config: &Arc<Config>,
        deadline: Option<u64>,
    ) -> Result<(), Self::Error>;
}

/// Puts nothing in force: for work on the state directory while no agent runs.
#[derive(Clone, Copy, Debug)]
pub struct Unpublished;

impl Publish for Unpublished {
    type Error = std::convert::Infallible;

    fn publish(
        &mut self,
        _: &Arc<AllowList>,
        _: &Arc<Config>,
        _: Option<u64>,
    ) -> Result<(), Self::Error> {
        Ok(())
    }
}
