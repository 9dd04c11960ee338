//! The life of the allow-list.
//!
//! 1. `collect`: is there another version, and what does it say?
//! 2. `vet`: may it replace what is in force?
//! 3. `plan`: what comes at once, what goes later?
//! 4. `publish`: the gate puts it in force.
//! 5. `persist`: only then version and data are remembered, together.
//!
//! In this order a crash repeats work and never skips it. The [`Keeper`] runs
//! these steps; each is a module that can be tested alone.
//!
//! # When things fail
//!
//! The list in force stays: the last one that was applied, or on a first start
//! the one that is built in. Neither opening the keeper nor the gate waits for
//! the network. Every failure has a machine reason, which is a metric label, and
//! a sentence for people, which is logged and in the [`Status`].

mod collect;
mod held;
mod history;
mod keeper;
mod list;
mod metrics;
mod mode;
mod persist;
mod plan;
mod publish;
mod schedule;
mod status;
mod temporary;
mod vet;

pub(crate) use self::keeper::MAX_IMPORT;
use self::mode::settled;
pub use self::{
    collect::{Ask, Collect, Feeds},
    held::{Held, Known, Pending, Provenance, embedded},
    history::{Event, History, Record},
    keeper::{Command, Import, Keeper, OpenError, Outcome},
    list::{AllowList, FeedVersion, Listed, Match},
    metrics::{Metrics, PollResult},
    mode::{ModeOrder, mode_in_force},
    persist::{Error as StateError, StateDirectory},
    plan::{Change, Grace, Plan, plan},
    publish::{Publish, Unpublished},
    status::{FeedStatus, Offer, Problem, Status},
    temporary::Temporary,
    vet::{Leniency, Refusal, vet_change, vet_content, vet_sets},
};
