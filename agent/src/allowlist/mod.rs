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
mod keeper;
mod list;
mod metrics;
mod persist;
mod plan;
mod publish;
mod schedule;
mod status;
mod vet;

pub use self::{
    collect::{Collect, WebService},
    held::{Held, Pending, Provenance, embedded},
    keeper::{Command, Keeper},
    list::{AllowList, FeedVersion, Listed, Match},
    metrics::{Metrics, PollResult},
    persist::{Error as StateError, StateDirectory},
    plan::{Change, Grace, Plan, plan},
    publish::Publish,
    status::{FeedStatus, Problem, Status},
    vet::{Leniency, Refusal, vet_change, vet_sets},
};
