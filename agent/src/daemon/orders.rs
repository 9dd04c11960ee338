//! Orders of operators, and what became of them.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    admin::api::{Change, Diff, FeedDiff, Obeyed, Order},
    allowlist::{self, Command, Import, Offer, Outcome, Temporary},
    config::{Config, Mode},
    daemon::explain,
    source::feed::FeedId,
};

/// How long a poll that was ordered is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Running against offered.
pub(super) fn diff(status: &allowlist::Status) -> Diff {
    let feeds = status.feeds.iter().map(|(id, feed)| {
        let offer = status.offers.get(id);
        let problem = offer.and_then(|offer| offer.problem.as_ref()).or(feed.problem.as_ref());
        FeedDiff {
            feed: id.to_string(),
            running: feed.revision.as_ref().map(ToString::to_string),
            offered: offer.map(|offer| offer.revision.to_string()),
            seen: offer.map(|offer| offer.at.to_string()),
            added: changes(offer, |offer| &offer.added),
            removed: changes(offer, |offer| &offer.removed),
            pending: feed
                .pending_removals
                .iter()
                .map(|pending| Change {
                    source: pending.source.clone(),
                    prefix: pending.entry.prefix,
                })
                .collect(),
            problem: problem.map(explain::problem),
        }
    });
    Diff { hold: status.hold, feeds: feeds.collect() }
}

fn changes(offer: Option<&Offer>, of: impl Fn(&Offer) -> &Vec<allowlist::Change>) -> Vec<Change> {
    offer
        .map(of)
        .into_iter()
        .flatten()
        .map(|change| Change { source: change.source.clone(), prefix: change.prefix })
        .collect()
}

/// The feed that an operator names: a source that has one, or an instance in any
/// case.
pub(crate) fn feed(config: &Config, name: &str) -> Result<FeedId, String> {
    let feeds = config.feeds();
    let known = feeds.iter().find(|id| id.to_string() == name).or_else(|| {
        feeds.iter().find(|id| {
            matches!(id, FeedId::Instance(instance) if instance.name().eq_ignore_ascii_case(name))
        })
    });
    if let Some(id) = known {
        return Ok(id.clone());
    }
    // Whoever names a source of the web service means its instance.
    let source = config.sources.iter().find(|source| source.name == name);
    source.and_then(crate::config::Source::feed).ok_or_else(|| {
        let names: Vec<_> = feeds.iter().map(ToString::to_string).collect();
        format!("there is no feed {name:?}; there are {}", names.join(", "))
    })
}

/// Has the keeper obey an order, and waits for it.
pub(super) async fn obey(
    order: Order,
    config: Arc<Config>,
    commands: mpsc::Sender<Command>,
    mut list: watch::Receiver<allowlist::Status>,
) -> Result<Obeyed, String> {
    let now = Timestamp::now();
    let gone = || "the allow-list's task is gone".to_owned();
    let mut polled = None;
    let mut accepted = None;
    let (done, outcome) = oneshot::channel();
    let (command, waits) = match order {
        Order::Refresh { dry_run } => {
            polled = Some(config.feeds());
            (Command::Refresh { dry_run }, false)
        }
        Order::Accept { feed: name } => {
            let id = feed(&config, &name)?;
            polled = Some(vec![id.clone()]);
            accepted = Some(id.clone());
            (Command::Accept(id), false)
        }
        Order::Hold => (Command::Hold { hold: true, done }, true),
        Order::Resume => (Command::Hold { hold: false, done }, true),
        Order::Import { feed: name, version, accept, content } => {
            let import = Import {
                feed: feed(&config, &name)?,
                body: content.into_bytes(),
                version: version.map(|text| text.parse()).transpose()?,
                accept,
            };
            (Command::Import { import, done }, true)
        }
        Order::Enforce { confirm_within_seconds } => {
            let config = Config { mode: Mode::Enforce, ..Config::clone(&config) };
            super::check(&config).map_err(|error| error.to_string())?;
            let confirm_within = confirm_within_seconds.map(Duration::from_secs);
            (Command::Enforce { confirm_within, done }, true)
        }
        Order::Confirm => (Command::Confirm { done }, true),
        Order::Monitor => (Command::Monitor { done }, true),
        Order::Allow { prefix, seconds, reason } => {
            let entry = Temporary::new(prefix, Duration::from_secs(seconds), &reason, now)?;
            (Command::Allow { entry, done }, true)
        }
        Order::Disallow { prefix } => (Command::Disallow { prefix, done }, true),
    };
    commands.send(command).await.map_err(|_| gone())?;
    if waits {
        let result: Outcome = outcome.await.map_err(|_| gone())?;
        result?;
    }
    if let Some(ids) = polled {
        wait_for_polls(&mut list, &ids, now).await?;
    }
    let status = list.borrow().clone();
    let feed = accepted.and_then(|id| status.feeds.get(&id).cloned());
    if let Some(problem) = feed.and_then(|feed| feed.problem) {
        return Err(format!("nothing was accepted, the list in force stays: {}", problem.message));
    }
    Ok(Obeyed {
        diff: diff(&status),
        temporary: status.temporary.iter().map(explain::temporary).collect(),
        list: status.list.hash().to_owned(),
        mode: status.mode.name().to_owned(),
        configured_mode: status.configured_mode.name().to_owned(),
        confirm_by: status.confirm_by,
    })
}

/// Waits until feeds were polled after a moment.
async fn wait_for_polls(
    list: &mut watch::Receiver<allowlist::Status>,
    ids: &[FeedId],
    since: Timestamp,
) -> Result<(), String> {
    let polled = list.wait_for(|status| {
        ids.iter().filter_map(|id| status.feeds.get(id)).all(|feed| {
            feed.next_attempt.is_some() && feed.last_attempt.is_some_and(|at| at >= since)
        })
    });
    match tokio::time::timeout(PATIENCE, polled).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err("the allow-list's task is gone".to_owned()),
        Err(_) => Err(format!(
            "the polls are still under way after {} s; see `exogate status`",
            PATIENCE.as_secs()
        )),
    }
}
