use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use proptest::prelude::*;

use super::*;
use crate::source::fetch::stand_in::{self, Server};

/// A set with keys of these ids. They sign nothing here.
fn set(ids: &[&str]) -> String {
    let key =
        |id: &&str| format!(r#"{{"kty":"RSA","use":"sig","kid":"{id}","n":"AQAB","e":"AQAB"}}"#);
    format!(r#"{{"keys":[{}]}}"#, ids.iter().map(key).collect::<Vec<_>>().join(","))
}

/// Keys that are read from these answers, the last one again and again; `None`
/// fails. And how often they were read.
pub(in crate::relay::graph) fn scripted(
    answers: impl IntoIterator<Item = Option<String>>,
) -> (Arc<Keys>, Arc<AtomicUsize>) {
    let answers = Mutex::new(answers.into_iter().collect::<VecDeque<_>>());
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reads);
    let keys = Keys::from(Box::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
        let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        let failed = || fetch::Error::Setup("no way out".to_owned());
        let answer = answer.flatten().map(Bytes::from).ok_or_else(failed);
        Box::pin(async move { answer })
    }));
    let keys = Arc::new(keys);
    let running = Arc::clone(&keys);
    tokio::spawn(async move { running.run().await });
    (keys, reads)
}

/// What is known of a key.
async fn known(keys: &Keys, id: &str) -> Result<bool, NoKeys> {
    keys.find(id).await.map(|key| key.is_some())
}

#[tokio::test(start_paused = true)]
async fn keys_are_read_at_once_and_daily() {
    let (keys, reads) = scripted([Some(set(&["a"])), Some(set(&["b"]))]);
    assert_eq!(known(&keys, "a").await, Ok(true));
    assert_eq!(known(&keys, "b").await, Ok(false));
    sleep(USUAL + Duration::from_secs(1)).await;
    assert_eq!(known(&keys, "b").await, Ok(true));
    assert_eq!(known(&keys, "a").await, Ok(false));
    assert_eq!(reads.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_key_is_looked_for_every_five_minutes_at_most() {
    let (keys, reads) = scripted([Some(set(&["a"])), Some(set(&["a", "b"]))]);
    for _ in 0..10 {
        assert_eq!(known(&keys, "b").await, Ok(false));
    }
    assert_eq!(reads.load(Ordering::SeqCst), 1);
    sleep(SHORTEST + Duration::from_secs(1)).await;
    assert_eq!(known(&keys, "b").await, Ok(true));
    for _ in 0..10 {
        assert_eq!(known(&keys, "c").await, Ok(false));
    }
    assert_eq!(reads.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn while_keys_cannot_be_read_the_last_good_ones_stay_and_others_are_undecided() {
    let (keys, _) = scripted([Some(set(&["a"])), None, None, Some(set(&["b"]))]);
    assert_eq!(known(&keys, "a").await, Ok(true));
    sleep(SHORTEST + Duration::from_secs(1)).await;
    assert_eq!(known(&keys, "b").await, Err(NoKeys));
    assert_eq!(known(&keys, "a").await, Ok(true));
    sleep(RETRY * 4).await;
    assert_eq!(known(&keys, "b").await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn until_keys_were_ever_read_nothing_is_decided() {
    for answer in [None, Some("{}".to_owned()), Some(r#"{"keys":[]}"#.to_owned())] {
        let (keys, _) = scripted([answer, Some(set(&["a"]))]);
        assert_eq!(known(&keys, "a").await, Err(NoKeys));
        sleep(RETRY * 2).await;
        assert_eq!(known(&keys, "a").await, Ok(true));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_server_costs_no_more_than_patience() {
    let keys = Arc::new(Keys::from(Box::new(|| Box::pin(std::future::pending()))));
    let running = Arc::clone(&keys);
    tokio::spawn(async move { running.run().await });
    let began = Instant::now();
    assert_eq!(known(&keys, "a").await, Err(NoKeys));
    assert_eq!(began.elapsed(), PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_keys_that_just_could_not_be_read() {
    let (keys, _) = scripted([None]);
    assert_eq!(known(&keys, "a").await, Err(NoKeys));
    let began = Instant::now();
    assert_eq!(known(&keys, "a").await, Err(NoKeys));
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn keys_are_fetched_from_the_configured_address() {
    let server = Server::start(&[stand_in::answer("200 OK", "", &set(&["a"]))], false).await;
    let config = config::Tokens {
        audiences: Vec::new(),
        keys_url: format!("{}/common/keys", server.base_url()),
        ca_file: server.options().ca_file,
    };
    let keys = Arc::new(Keys::new(&config, &Feed::default()).unwrap());
    let running = Arc::clone(&keys);
    tokio::spawn(async move { running.run().await });
    keys.state.subscribe().wait_for(|state| state.read.is_some()).await.unwrap();
    assert_eq!(known(&keys, "a").await, Ok(true));
    assert_eq!(server.asked(), ["GET /common/keys HTTP/1.1"]);
}

#[test]
fn keys_for_other_purposes_are_left_out() {
    let body = br#"{"keys": [
        {"kty": "RSA", "use": "sig", "kid": "a", "n": "AQAB", "e": "AQAB", "x5c": ["x"],
         "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"},
        {"kty": "RSA", "use": "enc", "kid": "b", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "kid": "c", "x": "AQAB", "y": "AQAB"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "kid": "d", "n": "!", "e": "AQAB"},
        {"kty": "oct", "kid": "e", "k": "AQAB"}
    ]}"#;
    let keys = parse(body).unwrap();
    assert_eq!(keys.keys().collect::<Vec<_>>(), ["a"]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(&body);
    }
}
