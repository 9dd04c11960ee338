//! How much is done: which lists, which kinds of packets, how many rounds of what length.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, bail};
use exogate_tests::{
    lists::{exchange, service_tags, spread},
    random::Random,
};

use super::AZURE;
use crate::{
    rig::{List, Order, Share, receiver_core},
    support::Arguments,
};

/// The lists: the names that `--lists` takes, their prefixes, and families.
const LISTS: [(&str, usize, usize); 6] = [
    ("34", 34, 2),
    ("1000", 1_000, 2),
    ("azure", AZURE, 2),
    ("54000", 54_000, 2),
    ("million-v4", 1_000_000, 1),
    ("million-v6", 1_000_000, 1),
];

/// What is to be done.
pub struct Scope {
    /// One round of moments, to see that it works.
    pub quick: bool,
    /// The sender on a core of its own.
    pub separate: bool,
    lists: Vec<&'static str>,
}

/// What packets are sent, for a list of so many prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub prefixes: usize,
    pub share: Share,
    pub order: Order,
}

/// How often something is measured, and how long each time.
pub struct Pace {
    pub rounds: usize,
    pub time: Duration,
}

impl Scope {
    /// What the arguments ask for.
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let quick = arguments.quick();
        let lists = match arguments.value("--lists") {
            Some(names) => chosen(names)?,
            None if quick => vec!["34"],
            None => LISTS.map(|(name, ..)| name).to_vec(),
        };
        Ok(Self { quick, separate: arguments.has("--separate"), lists })
    }

    /// The names of the lists to try.
    pub fn lists(&self) -> &[&'static str] {
        &self.lists
    }

    /// The kinds of packets that a list is tried with.
    pub fn kinds(&self, prefixes: usize) -> Vec<Kind> {
        let orders = if self.quick { &[Order::Random][..] } else { &Order::EVERYWHERE };
        let kind = |share, order| Kind { prefixes, share, order };
        let mut kinds: Vec<Kind> =
            orders.iter().flat_map(|order| Share::ALL.map(|share| kind(share, *order))).collect();
        if prefixes == AZURE && !self.quick {
            kinds.push(kind(Share::Dropped, Order::Near));
        }
        kinds
    }

    /// How a kind is measured. Many short rounds tell small differences best, since the
    /// machine's pace changes from second to second; but all of it has to be done in 40
    /// minutes, so there are few of them where no target is set, and fewest with a million
    /// prefixes.
    pub fn pace(&self, kind: &Kind) -> Pace {
        let (rounds, milliseconds) = match (kind.prefixes, kind.share, kind.order) {
            _ if self.quick => (1, 20),
            (..1_000, Share::Dropped | Share::Passed, Order::Random) => (21, 100),
            (_, Share::Dropped, Order::Random) => (7, 300),
            (..=54_000, ..) => (7, 100),
            _ => (3, 100),
        };
        Pace { rounds, time: Duration::from_millis(milliseconds) }
    }

    /// How many measurements that makes, if so many contenders can do a kind.
    pub fn measurements(&self, able: impl Fn(&Kind) -> usize) -> usize {
        let lists = LISTS.iter().filter(|(name, ..)| self.lists.contains(name));
        let of_list = |(_, prefixes, families): &(_, usize, usize)| {
            let kinds = self.kinds(*prefixes).into_iter();
            families * kinds.map(|kind| self.pace(&kind).rounds * able(&kind)).sum::<usize>()
        };
        lists.map(of_list).sum()
    }

    pub fn sender_core(&self) -> usize {
        if self.separate { 0 } else { receiver_core() }
    }
}

/// Names of lists, with commas between them.
fn chosen(names: &str) -> Result<Vec<&'static str>> {
    let known = LISTS.map(|(name, ..)| name);
    let find = |name: &str| match known.iter().find(|list| **list == name) {
        Some(list) => Ok(*list),
        None => bail!("no list has the name '{name}'; there are {}", known.join(", ")),
    };
    names.split(',').map(find).collect()
}

/// The lists of a name. Those that are spread over all addresses have one family each.
pub fn lists(name: &str) -> Result<Vec<List>> {
    let families: &[bool] = match name {
        "million-v4" => &[false],
        "million-v6" => &[true],
        _ => &[false, true],
    };
    let made = |count| families.iter().map(|v6| List::new(spread(count, *v6))).collect();
    Ok(match name {
        "34" => vec![List::new(exchange()?)],
        "1000" => vec![List::new(thousand()?)],
        "azure" => vec![List::new(service_tags()?)],
        "54000" => made(54_000),
        _ => made(1_000_000),
    })
}

/// A thousand of Azure's prefixes.
fn thousand() -> Result<Vec<ipnet::IpNet>> {
    let tags = service_tags()?;
    let mut random = Random::new(3);
    let mut thousand = BTreeSet::new();
    while thousand.len() < 1_000 {
        thousand.insert(tags[random.below(tags.len())]);
    }
    Ok(thousand.into_iter().collect())
}
