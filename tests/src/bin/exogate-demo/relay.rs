//! The second half: notifications, and a server that is not always there.

use std::collections::BTreeSet;

use anyhow::Result;
use exogate_tests::{
    agent::relay::{EWS, GRAPH},
    lab::{Family, Peer},
    notification::Notification,
    peer::Reached,
    pega::Pega,
};

use super::{PATIENCE, Show, heading};

/// Where the stand-in of Pega listens, on the edge host's loopback.
const PEGA: u16 = 8080;
/// Notifications of each subscription while Pega is away.
const MISSED: u64 = 5;
const SUBSCRIPTIONS: [&str; 2] = ["calendar-of-ann", "calendar-of-bob"];

impl Show {
    /// Puts the relay in the place of the HTTPS server, and shows what it does.
    pub(super) fn relay(&mut self) -> Result<()> {
        heading("The relay takes the place of the HTTPS server, in front of a stand-in of Pega");
        let mut pega = Pega::start(&self.lab, PEGA)?;
        self.server = None;
        self.agent.add_relay(&[&pega])?;
        self.agent.restart()?;
        println!("          EWS push to https://notify.example.com{EWS}");
        println!("          Graph to https://notify.example.com{GRAPH}");

        let ews = Notification::ews(EWS, "c3Vic2NyaXB0aW9uIG9mIEFubg==", 1)?;
        let answer = ews.answer(&self.lab, Peer::Exchange)?;
        let said = answer.text().contains("<SubscriptionStatus>OK</SubscriptionStatus>");
        self.claim(
            answer.status == 200 && said,
            "an EWS push of Exchange Online is answered 200 OK by Pega, through the relay",
        );
        let validation = Notification::validation(GRAPH, "a-token-of-Graph");
        let answer = validation.answer(&self.lab, Peer::Graph)?;
        self.claim(
            answer.status == 200 && answer.text() == "a-token-of-Graph",
            "Graph validates the address for a subscription; Pega confirms it",
        );
        let answer =
            Notification::graph(GRAPH, &SUBSCRIPTIONS, 0, "").answer(&self.lab, Peer::Graph)?;
        self.claim(answer.status == 202, "a Graph notification is answered 202: it is on the disk");
        let arrived = pega.wait_for(3, PATIENCE)?;
        let id = arrived.last().and_then(|request| request.id()).unwrap_or_default();
        self.claim(!id.is_empty(), &format!("and has reached Pega, as {id}"));
        let stranger = Notification::graph(GRAPH, &SUBSCRIPTIONS, 0, "");
        let stranger = stranger.send(&self.lab, Peer::Stranger, Family::V4)?;
        self.claim(matches!(stranger, Reached::TimedOut), "a stranger's gets no answer");

        heading("Pega is stopped. Microsoft notices nothing");
        let before = pega.taken().len();
        pega.stop();
        let mut accepted = 0u64;
        for number in 1..=MISSED {
            for subscription in SUBSCRIPTIONS {
                let sent = Notification::graph(GRAPH, &[subscription], number, "");
                let answer = sent.answer(&self.lab, Peer::Graph)?;
                accepted = accepted.saturating_add(u64::from(answer.status == 202));
            }
        }
        let line = format!("{accepted} notifications are accepted all the same");
        self.claim(accepted == MISSED.saturating_mul(2), &line);
        println!("          $ exogate spool status");
        for line in self.agent.print(&["spool", "status"])?.lines() {
            println!("          {line}");
        }

        heading("Pega comes back");
        pega.resume()?;
        let missed = usize::try_from(accepted)?;
        pega.wait_for(before.saturating_add(missed), PATIENCE)?;
        let late = pega.taken().split_off(before);
        let ids: BTreeSet<_> = late.iter().filter_map(|request| request.id()).collect();
        self.claim(ids.len() == missed, &format!("it gets the {missed} that it missed, each once"));
        for subscription in SUBSCRIPTIONS {
            let numbers: Vec<_> =
                late.iter().filter_map(|one| number(&one.body, subscription)).collect();
            let line = format!("those of {subscription} in order: {numbers:?}");
            self.claim(numbers == (1..=MISSED).collect::<Vec<_>>(), &line);
        }
        self.pega = Some(pega);
        Ok(())
    }

    /// A notification of each sender, for the counters to move.
    pub(super) fn notify(&self, number: u64) {
        let graph = Notification::graph(GRAPH, &SUBSCRIPTIONS, number, "");
        // Whoever changes the configuration meanwhile changes the outcome.
        drop(graph.send(&self.lab, Peer::Graph, Family::V4));
        if let Ok(ews) = Notification::ews(EWS, "c3Vic2NyaXB0aW9uIG9mIEFubg==", number) {
            drop(ews.send(&self.lab, Peer::Exchange, Family::V6));
        }
        drop(graph.send(&self.lab, Peer::Stranger, Family::V4));
    }
}

/// The number of a notification, if it is of this subscription.
fn number(body: &[u8], subscription: &str) -> Option<u64> {
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let is_its = json.pointer("/value/0/subscriptionId")?.as_str()? == subscription;
    json.pointer("/value/0/resourceData/id")?.as_u64().filter(|_| is_its)
}
