//! The configuration.
//!
//! Seeds: deploy tests/fuzz/seeds/config
#![no_main]

use std::time::Duration;

use exogate::config::{Config, MAX_CONFIGURED_SOURCES};
use exogate_fuzz::assert_message;
use libfuzzer_sys::fuzz_target;

const DAY: Duration = Duration::from_secs(86_400);

fuzz_target!(|text: &str| {
    match Config::parse("exogate.toml".as_ref(), text) {
        Ok(config) => assert_limits(&config),
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("exogate.toml"), "{message}");
            assert_message(&message);
        }
    }
});

fn assert_limits(config: &Config) {
    assert!(config.state_directory.is_absolute());
    assert!((1..=4_000_000).contains(&config.gate.capacity));
    assert!(config.sources.len() <= MAX_CONFIGURED_SOURCES);
    for (place, source) in config.sources.iter().enumerate() {
        assert!((1..=40).contains(&source.name.len()), "{:?}", source.name);
        let users = config.guards.iter().filter(|guard| guard.sources.contains(&place));
        assert!(users.count() > 0, "{} has a bit, and no guard uses it", source.name);
    }
    let mut guarded = Vec::new();
    for guard in &config.guards {
        assert!(!guard.sources.is_empty() && !guard.ports.is_empty());
        assert!(guard.sources.iter().all(|place| *place < config.sources.len()));
        assert!(!guard.protocols.is_empty() && guard.mask() != 0);
        guarded.extend(
            guard.ports.iter().flat_map(|port| {
                guard.protocols.iter().map(move |protocol| (*port, protocol.name()))
            }),
        );
    }
    assert!(guarded.iter().all(|(port, _)| *port != 0));
    let count = guarded.len();
    guarded.sort_unstable();
    guarded.dedup();
    assert_eq!(guarded.len(), count, "a port is guarded twice");

    let feed = &config.feed;
    assert!(feed.base_url.starts_with("https://"), "{}", feed.base_url);
    assert!((Duration::from_secs(1)..=7 * DAY).contains(&feed.interval));
    assert!((Duration::from_secs(1)..=Duration::from_secs(300)).contains(&feed.timeout));
    assert!(feed.first_poll_within <= Duration::from_secs(3600));
    assert!(feed.removal_grace <= 30 * DAY);
}
