//! The keys that Microsoft signs tokens with, as it publishes them.
//!
//! They are read daily, and when a token names one that is not known, at most
//! every five minutes. The last good ones stay while they cannot be read. A token
//! with an unknown key is only said to be wrong if the keys were read just now;
//! else it may be a new key, and nobody knows: [`NoKeys`].

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use hyper::{Uri, body::Bytes};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use crate::{
    config::{self, Feed},
    source::fetch::{self, Client},
};

/// How long a request waits for keys that are being read. Graph calls an answer
/// slow after three seconds, and repeats what is answered 503.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Time between two readings.
const USUAL: Duration = Duration::from_secs(24 * 3600);
/// And at the least, if a key is missed.
const SHORTEST: Duration = Duration::from_secs(300);
/// Time to the next reading after one that failed; it doubles up to the shortest
/// time between readings that succeed.
const RETRY: Duration = Duration::from_secs(5);

/// Largest answer. Microsoft's has about 20 KB.
const LARGEST: usize = 1 << 20;

type Fetch = Box<dyn Fn() -> BoxFuture<'static, Result<Bytes, fetch::Error>> + Send + Sync>;
type ById = HashMap<String, Arc<DecodingKey>>;

/// The keys, kept up to date while [`Keys::run`] runs.
pub struct Keys {
    fetch: Fetch,
    state: watch::Sender<State>,
    missed: Notify,
}

/// The keys could never be had, or not since a token named one that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKeys;

#[derive(Default)]
struct State {
    keys: ById,
    /// When they were read.
    read: Option<Instant>,
    /// Whether the last attempt failed.
    failed: bool,
}

impl State {
    /// What can be said about a key; `None`: nothing yet.
    fn find(&self, id: &str) -> Option<Result<Option<Arc<DecodingKey>>, NoKeys>> {
        if let Some(key) = self.keys.get(id) {
            return Some(Ok(Some(Arc::clone(key))));
        }
        if self.failed {
            return Some(Err(NoKeys));
        }
        self.read.is_some_and(|read| read.elapsed() < SHORTEST).then_some(Ok(None))
    }
}

impl Keys {
    /// Keys that nobody has read yet. `None` if their address is no URL.
    pub(super) fn new(config: &config::Tokens, feed: &Feed) -> Option<Self> {
        let url: Uri = config.keys_url.parse().ok()?;
        let options = fetch::Options {
            ca_file: config.ca_file.clone(),
            proxy: feed.proxy.clone(),
            timeout: feed.timeout,
        };
        Some(Self::from(Box::new(move || {
            let (url, options) = (url.clone(), options.clone());
            Box::pin(async move { Client::new(&options)?.get(&url, LARGEST).await })
        })))
    }

    fn from(fetch: Fetch) -> Self {
        Self { fetch, state: watch::Sender::new(State::default()), missed: Notify::new() }
    }

    /// Keeps the keys up to date; it never returns.
    pub async fn run(&self) {
        let mut pause = RETRY;
        loop {
            let answer = (self.fetch)().await.map_err(|error| error.to_string());
            match answer.and_then(|body| parse(&body)) {
                Ok(keys) => {
                    tracing::debug!(keys = keys.len(), "read the keys of validationTokens");
                    let read = Some(Instant::now());
                    self.state.send_replace(State { keys, read, failed: false });
                    pause = RETRY;
                    // Whoever missed one before has his answer.
                    _ = self.missed.notified().now_or_never();
                    sleep(SHORTEST).await;
                    _ = timeout(USUAL.saturating_sub(SHORTEST), self.missed.notified()).await;
                }
                Err(problem) => {
                    tracing::warn!(
                        problem,
                        "cannot read the keys of validationTokens; the last good ones stay"
                    );
                    self.state.send_modify(|state| state.failed = true);
                    sleep(pause).await;
                    pause = pause.saturating_mul(2).min(SHORTEST);
                }
            }
        }
    }

    /// The key of this id, `None` if there is certainly none. It waits for keys
    /// that are being read, at most [`PATIENCE`].
    pub(super) async fn find(&self, id: &str) -> Result<Option<Arc<DecodingKey>>, NoKeys> {
        let mut state = self.state.subscribe();
        if let Some(answer) = state.borrow_and_update().find(id) {
            return answer;
        }
        self.missed.notify_one();
        _ = timeout(PATIENCE, state.changed()).await;
        let answer = state.borrow().find(id);
        answer.unwrap_or(Err(NoKeys))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.state.borrow().keys.len())
    }
}

/// Reads a set of keys (RFC 7517). Those that are not for RSA signatures are left
/// out.
fn parse(body: &[u8]) -> Result<ById, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Key>,
    }

    #[derive(Deserialize)]
    struct Key {
        kty: String,
        r#use: Option<String>,
        kid: Option<String>,
        n: Option<String>,
        e: Option<String>,
    }

    let set: Set = serde_json::from_slice(body)
        .map_err(|error| format!("the answer is not a set of keys: {error}"))?;
    let keys = set.keys.into_iter().filter(|key| {
        key.kty == "RSA" && key.r#use.as_deref().is_none_or(|purpose| purpose == "sig")
    });
    let keys: ById = keys
        .filter_map(|key| {
            let (n, e) = key.n.zip(key.e)?;
            Some((key.kid?, Arc::new(DecodingKey::from_rsa_components(&n, &e).ok()?)))
        })
        .collect();
    if keys.is_empty() { Err("the answer holds no RSA key".to_owned()) } else { Ok(keys) }
}

/// Reads a set of keys. For fuzzing: it must return, whatever the bytes are.
pub fn read(body: &[u8]) -> Result<usize, String> {
    parse(body).map(|keys| keys.len())
}

#[cfg(test)]
pub(super) mod tests;
