//! A list that cannot be had, or cannot be right: the list in force stays, the
//! operator is told why, and the next good one is taken.

use std::time::Duration;

use exogate_tests::{
    agent::{Agent, Metrics},
    service::{Certificate, EndpointService, Fault, On},
};
use serde_json::{Value, json};
use toml::Table;

use super::{PARTNERS, SOON, feed, lab, passing, poll, wait};

/// A list that never ends.
const GIGABYTE: usize = 1 << 30;

/// What the service does to whoever asks for the list.
enum Trouble {
    Fault(Fault),
    Certificate(Certificate),
    /// Another list.
    List(&'static str),
}

use Trouble::{Certificate as Shows, Fault as Does, List as Says};

fn service_tags(prefixes: &[&str]) -> String {
    let tag = json!({ "name": "Partners", "properties": { "addressPrefixes": prefixes } });
    json!({ "changeNumber": 376, "cloud": "Public", "values": [tag] }).to_string()
}

fn hash(agent: &Agent) -> Value {
    agent.status_json().unwrap()["list"]["hash"].clone()
}

fn count(metrics: &Metrics, name: &str, reason: &str) -> f64 {
    let labels = [("source", "partners"), ("reason", reason)];
    metrics.sum(name, &labels).unwrap_or_default()
}

/// Gives an agent that follows a list every trouble, one after the other.
fn suffer(kind: &str, good: &str, better: &str, own: &[(Trouble, &str, &str)]) {
    const FAILED: &str = "exogate_source_failures_total";
    const REFUSED: &str = "exogate_source_refusals_total";
    let redirect = Fault::Redirect { location: "https://192.0.2.10/elsewhere".to_owned() };
    let slow = Fault::Slow { piece: 1, pause: Duration::from_secs(1) };
    let common = [
        (Does(Fault::Huge { bytes: GIGABYTE }), REFUSED, "too_large"),
        (Does(slow), FAILED, "timeout"),
        (Does(Fault::Hang), FAILED, "timeout"),
        (Does(Fault::Reset), FAILED, "transport"),
        (Does(Fault::Truncated), FAILED, "transport"),
        (Does(Fault::TooManyRequests), FAILED, "throttled"),
        (Does(Fault::ServerError), FAILED, "server_error"),
        (Does(redirect), FAILED, "redirect"),
        (Shows(Certificate::Expired), FAILED, "transport"),
        (Shows(Certificate::WrongName), FAILED, "transport"),
    ];

    let lab = lab();
    let service = EndpointService::start(&lab).unwrap();
    service.serve_list(good.to_owned());
    let mut agent = Agent::new(&lab).unwrap();
    let (url, ca) = (EndpointService::list_url(), lab.ca_file());
    let settings = format!(
        "[[guard]]\nport = 443\nsources = [\"partners\"]\n\
         [source.partners]\n{kind}\nurl = \"{url}\"\nca_file = {ca:?}"
    );
    agent.settings().extend(settings.parse::<Table>().unwrap());
    agent.set("feed.timeout", "5s").unwrap();
    agent.start().unwrap();
    let [a, b, ..] = PARTNERS;
    wait(&lab, a, true, SOON);
    let held = hash(&agent);

    for (trouble, metric, reason) in common.iter().chain(own) {
        service.heal();
        let what = match trouble {
            Does(fault) => {
                service.fail(On::List, fault.clone());
                format!("{fault:?}")
            }
            Shows(certificate) => {
                service.present(*certificate);
                format!("{certificate:?}")
            }
            Says(list) => {
                service.serve_list(*list);
                format!("{list:?}")
            }
        };
        let before = count(&agent.metrics().unwrap(), metric, reason);
        poll(&agent);
        let after = count(&agent.metrics().unwrap(), metric, reason);
        println!("{kind:<60} {what:<60} {reason}");
        assert!((after - before - 1.0).abs() < 0.5, "{what}: {}", agent.log());
        assert_eq!(feed(&agent, "partners")["problem"]["reason"], *reason, "{what}");
        assert_eq!(hash(&agent), held, "{what}");
    }
    assert_eq!(passing(&lab), [a]);

    service.heal();
    service.serve_list(better.to_owned());
    poll(&agent);
    assert_eq!(passing(&lab), [a, b], "{}", agent.log());
    assert!(feed(&agent, "partners")["problem"].is_null());
}

#[test]
fn a_plain_list_that_is_no_use_changes_nothing() {
    const REFUSED: &str = "exogate_source_refusals_total";
    let [a, b, ..] = PARTNERS;
    suffer(
        "kind = \"url\"",
        a,
        &format!("{a}\n{b}"),
        &[
            (Does(Fault::Html), REFUSED, "malformed"),
            (Does(Fault::Empty), REFUSED, "no_prefixes"),
            (Says("45.60.70.80\n45.60.71.80/24"), REFUSED, "malformed"),
            (Says("{\"hash\": \"\", \"sources\": []}"), REFUSED, "no_prefixes"),
            (Says("10.0.0.0/8"), REFUSED, "not_public"),
            (Says("0.0.0.0/0"), REFUSED, "not_public"),
            (Says("45.0.0.0/8"), REFUSED, "too_wide"),
            (Says("::ffff:45.60.70.80"), REFUSED, "malformed"),
            (Says("45.60.72.0/24"), REFUSED, "removes_too_much"),
        ],
    );
}

#[test]
fn service_tags_that_are_no_use_change_nothing() {
    const REFUSED: &str = "exogate_source_refusals_total";
    let [a, b, ..] = PARTNERS;
    suffer(
        "kind = \"service-tags\"\ntags = [\"Partners\"]",
        &service_tags(&[&format!("{a}/32")]),
        &service_tags(&[&format!("{a}/32"), &format!("{b}/32")]),
        &[
            (Does(Fault::Html), REFUSED, "not_json"),
            (Does(Fault::Empty), REFUSED, "not_json"),
            (Does(Fault::EmptyArray), REFUSED, "malformed"),
            (Says("{\"changeNumber\": 377, \"values\": []}"), REFUSED, "malformed"),
        ],
    );
}
