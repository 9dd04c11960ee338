//! What is outside of this host: the feeds, through the configured proxy, and the time.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Finding, Level};
use crate::{
    allowlist::{Ask, Collect as _, Feeds, embedded},
    config::Config,
    source::{
        feed::{FeedId, Revision},
        fetch,
        microsoft365::{Client, RequestId},
    },
};

/// A clock that is off by more than this is told.
const SKEW: i64 = 30;
/// And by more than this, tokens and certificates are misjudged.
const LARGE_SKEW: i64 = 300;

/// Asks every feed, and a web server for the time.
pub(super) async fn feeds(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for id in config.feeds() {
        let name = id.to_string();
        let next = next_step(config, &id);
        let finding = match ask(config, id).await {
            Ok(answer) => Finding::ok("feed", answer),
            Err(problem) => Finding::failure("feed", problem, next),
        };
        findings.push(finding.about(name));
    }
    let way = if config.feed.proxy.is_some() { "through the proxy" } else { "directly" };
    for finding in &mut findings {
        if finding.level == Level::Ok {
            finding.message.push_str(&format!(", asked {way}"));
        }
    }
    findings.push(clock(config).await);
    findings
}

fn next_step(config: &Config, id: &FeedId) -> &'static str {
    match (id, &config.feed.proxy) {
        (FeedId::Source(_), _) => "look at the source's definition in the configuration",
        (_, Some(_)) => {
            "look at feed.proxy and feed.ca_file; the list in force stays until this works"
        }
        (_, None) => {
            "open outbound HTTPS to it, or set feed.proxy; the list in force stays until this works"
        }
    }
}

/// What a feed says, without a change of anything.
async fn ask(config: &Config, id: FeedId) -> Result<String, String> {
    // Not the identifier of the installation: its file belongs to the agent.
    let request = RequestId::random();
    if let FeedId::Instance(instance) = &id {
        let client = Client::new(&config.feed.base_url, request, &config.feed.fetch_options())
            .map_err(|error| error.to_string())?;
        let version = client.version(*instance).await.map_err(|error| error.to_string())?;
        return Ok(format!("the latest version is {version}"));
    }
    let ask = Ask {
        config: config.feed.clone(),
        definition: config.source_of(&id).map(|source| source.definition.clone()),
        applied: None::<Revision>,
        content: Arc::clone(&embedded(&id).content),
        id,
    };
    let collected = Feeds { id: request }.collect(ask).await.map_err(|error| error.to_string())?;
    drop(collected);
    Ok("it answers with a list".to_owned())
}

/// Compares this host's clock with that of the web service.
async fn clock(config: &Config) -> Finding {
    let unknown = |problem: String| {
        Finding::warning(
            "clock",
            format!("cannot be compared with anybody's: {problem}"),
            "timedatectl shows whether it is synchronized",
        )
    };
    let url = match config.feed.base_url.parse() {
        Ok(url) => url,
        Err(_) => return unknown(format!("{} is not a URL", config.feed.base_url)),
    };
    let answered = match fetch::Client::new(&config.feed.fetch_options()) {
        Ok(client) => client.date(&url).await,
        Err(error) => Err(error),
    };
    match answered {
        Ok(Some(date)) => judge(Timestamp::now().duration_since(date).as_secs()),
        Ok(None) => unknown("the web service does not say its time".to_owned()),
        Err(error) => unknown(error.to_string()),
    }
}

fn judge(ahead: i64) -> Finding {
    const NEXT: &str = "synchronize it: timedatectl set-ntp true";
    let message = format!(
        "{} s {} the web service's",
        ahead.unsigned_abs(),
        if ahead < 0 { "behind" } else { "ahead of" }
    );
    match i64::try_from(ahead.unsigned_abs()).unwrap_or(i64::MAX) {
        0..=SKEW => Finding::ok("clock", message),
        ..=LARGE_SKEW => Finding::warning("clock", message, NEXT),
        _ => Finding::failure(
            "clock",
            format!("{message}: certificates and tokens are misjudged"),
            NEXT,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_be_off_by_half_a_minute() {
        for (ahead, level) in [
            (0, Level::Ok),
            (-30, Level::Ok),
            (31, Level::Warning),
            (-300, Level::Warning),
            (301, Level::Failure),
            (i64::MIN, Level::Failure),
        ] {
            assert_eq!(judge(ahead).level, level, "{ahead}");
        }
    }
}
