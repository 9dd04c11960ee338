//! Whose turn it is: the oldest in each of its lanes.
//!
//! A record that carries several subscriptions stands in the queue of each of
//! them, and its turn comes when it is at the front everywhere. Because records
//! join all their queues in one step, in the order of acceptance, no two can wait
//! for each other: the oldest of all is at the front of each of its lanes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// A record's place in the order of acceptance.
pub(super) type Key = u64;

/// The queues.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    queues: HashMap<Arc<str>, VecDeque<Key>>,
    /// In how many lanes a record is not at the front, if in any.
    behind: HashMap<Key, usize>,
}

impl Lanes {
    /// Puts a record, which is the youngest, at the end of its lanes. Whether its
    /// turn has come.
    pub(super) fn join(&mut self, key: Key, lanes: &[Arc<str>]) -> bool {
        let mut behind = 0_usize;
        for lane in lanes {
            let queue = match self.queues.get_mut(lane) {
                Some(queue) => queue,
                None => self.queues.entry(Arc::clone(lane)).or_default(),
            };
            if queue.back() == Some(&key) {
                // The lane is named twice.
                continue;
            }
            behind = behind.saturating_add(usize::from(!queue.is_empty()));
            queue.push_back(key);
        }
        if behind > 0 {
            self.behind.insert(key, behind);
        }
        behind == 0
    }

    /// Takes a record whose turn it was out of its lanes. Whose turn has come by
    /// that.
    pub(super) fn leave(&mut self, key: Key, lanes: &[Arc<str>]) -> Vec<Key> {
        let mut turns = Vec::new();
        for lane in lanes {
            let Some(queue) = self.queues.get_mut(lane) else { continue };
            if queue.front() != Some(&key) {
                // The lane is named twice.
                continue;
            }
            queue.pop_front();
            match queue.front().copied() {
                Some(next) => turns.extend(self.advance(next).then_some(next)),
                None => {
                    self.queues.remove(lane);
                }
            }
        }
        turns
    }

    fn advance(&mut self, key: Key) -> bool {
        let Some(behind) = self.behind.get_mut(&key) else { return false };
        *behind = behind.saturating_sub(1);
        if *behind > 0 {
            return false;
        }
        self.behind.remove(&key);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn lanes(names: &[&str]) -> Vec<Arc<str>> {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    #[test]
    fn a_record_waits_in_each_of_its_lanes() {
        let mut order = Lanes::default();
        assert!(order.join(1, &lanes(&["a"])));
        assert!(order.join(2, &lanes(&["b"])));
        assert!(!order.join(3, &lanes(&["a", "b"])));
        assert!(!order.join(4, &lanes(&["b"])));
        assert!(order.leave(2, &lanes(&["b"])).is_empty());
        assert_eq!(order.leave(1, &lanes(&["a"])), [3]);
        assert_eq!(order.leave(3, &lanes(&["a", "b"])), [4]);
    }

    #[test]
    fn a_record_does_not_wait_for_itself() {
        let mut order = Lanes::default();
        assert!(order.join(1, &lanes(&["a", "a"])));
        assert!(!order.join(2, &lanes(&["a", "b", "a"])));
        assert_eq!(order.leave(1, &lanes(&["a", "a"])), [2]);
    }

    #[test]
    fn records_without_lanes_are_free() {
        let mut order = Lanes::default();
        assert!(order.join(1, &[]) && order.join(2, &[]));
        assert!(order.leave(1, &[]).is_empty());
    }

    proptest! {
        /// Whatever ends first of what may: nobody overtakes in a lane, everybody
        /// has a turn, and nothing is left behind.
        #[test]
        fn turns_come_in_order_and_to_everybody(
            records in prop::collection::vec(prop::collection::vec(0_u8..5, 0..4), 1..60),
            choices in prop::collection::vec(any::<prop::sample::Index>(), 120),
        ) {
            let named: Vec<Vec<Arc<str>>> = records
                .iter()
                .map(|lanes| lanes.iter().map(|lane| lane.to_string().into()).collect())
                .collect();
            let mut order = Lanes::default();
            let mut turns = BTreeSet::new();
            let (mut joined, mut ended) = (0, Vec::new());
            for choice in choices {
                let joins = joined < named.len();
                let pick = choice.index(turns.len().saturating_add(usize::from(joins)));
                if pick == turns.len() {
                    if order.join(joined as Key, &named[joined]) {
                        turns.insert(joined);
                    }
                    joined = joined.saturating_add(1);
                } else {
                    let key = *turns.iter().nth(pick).unwrap();
                    turns.remove(&key);
                    for next in order.leave(key as Key, &named[key]) {
                        prop_assert!(turns.insert(next as usize), "{next} has two turns");
                    }
                    for earlier in 0..key {
                        let shared = records[earlier].iter().any(|lane| records[key].contains(lane));
                        prop_assert!(!shared || ended.contains(&earlier), "{key} overtook {earlier}");
                    }
                    ended.push(key);
                }
                if joined == named.len() && turns.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(ended.len(), named.len(), "somebody had no turn");
            prop_assert!(order.queues.is_empty() && order.behind.is_empty());
        }
    }
}
