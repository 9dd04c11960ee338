//! What becomes of the list: additions at once, removals after a grace period.
//!
//! Microsoft announces additions a month before they are used and asks nobody to
//! hurry with removals, while a removal by mistake breaks deliveries. So a prefix
//! that is no longer published stays *pending* until the period has passed and
//! some further polls have succeeded. Of a source that is *protected* it stays for
//! good. What an operator changes, in the configuration or in a file of this host,
//! takes effect at once.

use std::{collections::HashSet, time::Duration};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    held::{Held, Pending},
    vet::Coverage,
};
use crate::{
    config::Source,
    source::{
        Entry,
        feed::{Content, FeedId},
    },
};

/// How long a prefix stays that is no longer published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace {
    /// Time.
    pub period: Duration,
    /// And successful polls after the one that missed it.
    pub polls: u32,
}

/// A prefix of a source that comes or goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Change {
    /// The name of the source.
    pub source: String,
    /// The prefix.
    pub prefix: IpNet,
}

/// What a successful poll leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Prefixes that are new.
    pub added: Vec<Change>,
    /// Prefixes that go now.
    pub removed: Vec<Change>,
    /// Prefixes that will go.
    pub pending: Vec<Pending>,
}

/// Plans the step from what is held of a feed to the content of a successful
/// poll, which is the same if the revision has not changed.
#[must_use]
pub fn plan(
    sources: &[Source],
    feed: &FeedId,
    held: &Held,
    answer: &Content,
    now: Timestamp,
    grace: Grace,
) -> Plan {
    let mut plan = Plan::default();
    for source in sources.iter().filter(|source| source.feed().as_ref() == Some(feed)) {
        let change = |prefix| Change { source: source.name.clone(), prefix };
        let fixed = source.definition.fixed();
        let before = source.definition.take(&held.content);
        let after = source.definition.take(answer);
        let covered = Coverage::new(after.iter().chain(&fixed).map(|entry| &entry.prefix));

        let pending = held.pending.iter().filter(|pending| pending.source == source.name);
        let known: HashSet<_> = before
            .iter()
            .map(|entry| entry.prefix)
            .chain(pending.clone().map(|pending| pending.entry.prefix))
            .collect();
        let new = after.iter().filter(|entry| !known.contains(&entry.prefix));
        plan.added.extend(new.map(|entry| change(entry.prefix)));

        // More polls than needed are not counted, so that the state can rest.
        let waiting = pending.map(|pending| Pending {
            polls: pending.polls.saturating_add(1).min(grace.polls),
            ..pending.clone()
        });
        let missing = before.into_iter().map(|entry| Pending {
            source: source.name.clone(),
            entry: Entry { origin: entry.origin.brief(), ..entry },
            since: now,
            polls: 0,
        });
        for pending in waiting.chain(missing) {
            if covered.contains(&pending.entry.prefix) {
                continue;
            }
            let is_local = source.definition.is_local();
            if is_local || (!source.protected && is_due(&pending, now, grace)) {
                plan.removed.push(change(pending.entry.prefix));
            } else {
                plan.pending.push(pending);
            }
        }
    }
    plan
}

fn is_due(pending: &Pending, now: Timestamp, grace: Grace) -> bool {
    // A clock that went back makes the wait longer, never shorter.
    let waited = Duration::try_from(now.duration_since(pending.since)).unwrap_or(Duration::ZERO);
    waited >= grace.period && pending.polls >= grace.polls
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        allowlist::held,
        config::Config,
        source::microsoft365::{EndpointSet, Instance},
    };

    const GRACE: Grace = Grace { period: Duration::from_secs(24 * 3600), polls: 2 };

    const WORLDWIDE: FeedId = FeedId::Instance(Instance::Worldwide);

    fn sets(ips: &[&str]) -> Content {
        Content::Sets(vec![EndpointSet {
            id: 1,
            service_area: "Exchange".to_owned(),
            urls: vec![],
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            tcp_ports: "443".parse().unwrap(),
            udp_ports: "".parse().unwrap(),
        }])
    }

    fn held(ips: &[&str]) -> Held {
        Held { content: Arc::new(sets(ips)), ..held::embedded(&WORLDWIDE) }
    }

    fn hour(hour: i64) -> Timestamp {
        Timestamp::from_second(hour.saturating_mul(3600).saturating_add(1_800_000_000)).unwrap()
    }

    /// One successful poll with this answer.
    fn poll(held: &mut Held, ips: &[&str], now: Timestamp, grace: Grace) -> Plan {
        poll_for(&Config::default().sources[..1], held, ips, now, grace)
    }

    fn poll_for(
        sources: &[Source],
        held: &mut Held,
        ips: &[&str],
        now: Timestamp,
        grace: Grace,
    ) -> Plan {
        let answer = sets(ips);
        let plan = plan(sources, &WORLDWIDE, held, &answer, now, grace);
        held.content = Arc::new(answer);
        held.pending = plan.pending.clone();
        plan
    }

    fn texts(changes: &[Change]) -> Vec<String> {
        changes.iter().map(|change| change.prefix.to_string()).collect()
    }

    #[test]
    fn additions_come_at_once_and_removals_after_time_and_polls() {
        let mut held = held(&["40.1.0.0/16", "40.2.0.0/16"]);
        let after = ["40.1.0.0/16", "40.3.0.0/16"];
        let step = poll(&mut held, &after, hour(0), GRACE);
        assert_eq!(texts(&step.added), ["40.3.0.0/16"]);
        assert!(step.removed.is_empty());
        assert_eq!(step.pending.len(), 1);

        // Two polls, but not yet a day.
        for at in [1, 2, 23] {
            let step = poll(&mut held, &after, hour(at), GRACE);
            assert_eq!((step.added.len(), step.removed.len(), step.pending.len()), (0, 0, 1));
        }
        let step = poll(&mut held, &after, hour(24), GRACE);
        assert_eq!(texts(&step.removed), ["40.2.0.0/16"]);
        assert!(step.pending.is_empty());
    }

    #[test]
    fn a_day_without_polls_removes_nothing() {
        let mut held = held(&["40.1.0.0/16", "40.2.0.0/16"]);
        let after = ["40.1.0.0/16"];
        poll(&mut held, &after, hour(0), GRACE);
        assert!(poll(&mut held, &after, hour(100), GRACE).removed.is_empty());
        assert_eq!(poll(&mut held, &after, hour(101), GRACE).removed.len(), 1);
    }

    #[test]
    fn what_comes_back_is_no_longer_pending() {
        let mut held = held(&["40.1.0.0/16", "40.2.0.0/16"]);
        poll(&mut held, &["40.1.0.0/16"], hour(0), GRACE);
        let step = poll(&mut held, &["40.1.0.0/16", "40.2.0.0/16"], hour(1), GRACE);
        assert_eq!(step, Plan::default());
        // And its time starts anew.
        poll(&mut held, &["40.1.0.0/16"], hour(30), GRACE);
        assert_eq!(held.pending[0].since, hour(30));
    }

    #[test]
    fn without_grace_a_removal_is_immediate() {
        let mut held = held(&["40.1.0.0/16", "40.2.0.0/16"]);
        let grace = Grace { period: Duration::ZERO, polls: 0 };
        assert_eq!(poll(&mut held, &["40.1.0.0/16"], hour(0), grace).removed.len(), 1);
    }

    #[test]
    fn a_prefix_that_a_wider_one_covers_needs_no_grace() {
        let mut held = held(&["40.2.0.0/16", "40.3.0.0/16"]);
        let step = poll(&mut held, &["40.2.0.0/15"], hour(0), GRACE);
        assert_eq!(texts(&step.added), ["40.2.0.0/15"]);
        assert!(step.pending.is_empty() && step.removed.is_empty());
    }

    #[test]
    fn no_feed_removes_anything_from_a_protected_source() {
        let mut sources = Config::default().sources;
        sources.truncate(1);
        sources[0].protected = true;
        let mut held = held(&["40.1.0.0/16", "40.2.0.0/16"]);
        for at in [0, 24, 48, 10_000] {
            let step = poll_for(&sources, &mut held, &["40.1.0.0/16"], hour(at), GRACE);
            assert_eq!((step.removed.len(), step.pending.len()), (0, 1));
        }
        // Until the operator says otherwise.
        sources[0].protected = false;
        let step = poll_for(&sources, &mut held, &["40.1.0.0/16"], hour(10_001), GRACE);
        assert_eq!(texts(&step.removed), ["40.2.0.0/16"]);
    }

    #[test]
    fn a_clock_that_goes_back_removes_nothing() {
        let mut held = held(&["40.1.0.0/16", "40.2.0.0/16"]);
        for at in [0, -1000, -999, -998] {
            assert!(poll(&mut held, &["40.1.0.0/16"], hour(at), GRACE).removed.is_empty());
        }
    }

    #[test]
    fn pending_removals_of_a_source_that_is_gone_are_forgotten() {
        let mut held = held(&["40.1.0.0/16", "40.2.0.0/16"]);
        poll(&mut held, &["40.1.0.0/16"], hour(0), GRACE);
        held.pending[0].source = "renamed".to_owned();
        assert!(poll(&mut held, &["40.1.0.0/16"], hour(1), GRACE).pending.is_empty());
    }
}
