//! The relay, from the sender to the server behind it: real packets through the
//! filter, real TLS, a real spool. Needs root and the agent's binary.
//!
//! | module | asks |
//! |---|---|
//! | `acceptance` | what is accepted, and how it arrives |
//! | `checks` | what is refused, and what it is answered |
//! | `outage` | what happens while the server behind it is away, slow or wrong |
//! | `dead_letters` | what an operator can do with what was given up |
//! | `day` | whether a day of Graph's traffic goes well |
//! | `life` | what stops, crashes and restarts lose: nothing |
//! | `owner` | whether a service goes on with what an agent of root left |
//! | `peers` | whether exchangelib, requests and nginx take it for what it is |
//! | `scan` | what testssl.sh says of its TLS |
//! | `cluster` | whether another host delivers what a lost one accepted |
//! | `features` | what else can be configured: TLS, proxies, sockets, tokens |
//! | `secrets` | what is told to nobody |
//! | `proxied` | what a proxy does to requests and answers |
//! | `switched` | connections that change to another protocol, or must not |
//! | `passthrough` | TLS that is not the relay's |
//! | `exchange` | whether exchangelib, requests and curl reach an Exchange server |
//! | `failover` | what clients notice when a server of two fails: nothing that they may not |
//! | `service` | draining, limits and the access log of the proxy |
//! | `examples` | whether the example configurations start, tunnels included |
//! | `differential` | whether nginx and haproxy agree on framing |
//! | `way_out` | notifications of Exchange on-premises to a cloud |
//! | `identities` | whether a server ever takes one client for another: never |
//! | `hostile`, `hostile_h2`, `smuggling` | what a peer that means ill can do: nothing |
//! | `rfc9113` | what mistakes about HTTP/2 cost |
//! | `faults` | what a full disk or a lack of file descriptors does |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test stops at the first thing that goes wrong"
)]

mod acceptance;
mod checks;
mod cluster;
mod day;
mod dead_letters;
mod differential;
mod examples;
mod exchange;
mod failover;
mod faults;
mod features;
mod hostile;
mod hostile_h2;
mod identities;
mod life;
mod outage;
mod owner;
mod passthrough;
mod peers;
mod proxied;
mod rfc9113;
mod scan;
mod secrets;
mod service;
mod smuggling;
mod switched;
mod way_out;

use std::{path::Path, time::Duration};

use exogate_tests::{agent::Agent, lab::Lab, pega::Pega, service::EndpointService};

/// How long anything may take to show, in a debug build on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A lab with an agent that filters and relays to one server, which is well.
struct Setting {
    agent: Agent,
    pega: Pega,
    _service: EndpointService,
    lab: Lab,
}

impl Setting {
    /// Not started yet, so that a test may set more.
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let service = EndpointService::start(&lab).unwrap();
        let pega = Pega::start(&lab, 8080).unwrap();
        let mut agent = Agent::new(&lab).unwrap();
        agent.add_relay(&[&pega]).unwrap();
        Self { agent, pega, _service: service, lab }
    }

    /// Started, with the defaults.
    fn started() -> Self {
        let mut setting = Self::new();
        setting.agent.start().unwrap();
        setting
    }

    /// A file of the lab with a secret in it, as a value of the configuration.
    fn secret(&self, name: &str, value: &str) -> String {
        let path = self.lab.directory().join(name);
        write_private(&path, value);
        path.to_str().unwrap().to_owned()
    }

    /// The sum of a metric: 0 if nothing was counted yet. A metric that does not exist is
    /// a mistake of the test, and not 0.
    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        assert!(is_documented(name), "no metric is called {name}");
        self.agent.metrics().unwrap().sum(name, labels).unwrap_or(0.0)
    }

    /// Waits until the series with these labels have this sum.
    fn until(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let begin = std::time::Instant::now();
        while self.metric(name, labels) != value {
            assert!(begin.elapsed() < SOON, "{name}: {}", self.metric(name, labels));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether METRICS.md, which another test holds to what there is, has a metric.
fn is_documented(name: &str) -> bool {
    const PAGE: &str = include_str!("../../../deploy/prometheus/METRICS.md");
    let parts = ["_bucket", "_sum", "_count"];
    let family = parts.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name);
    [name, family].iter().any(|name| PAGE.contains(&format!("| `{name}` |")))
}

fn write_private(path: &Path, text: &str) {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let mut options = std::fs::OpenOptions::new();
    let file = options.create(true).truncate(true).write(true).mode(0o600).open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}
