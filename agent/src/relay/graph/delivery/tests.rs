use futures_util::FutureExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{
        keys::tests::scripted,
        token::tests::{AUDIENCE, Signer, TENANT},
    },
    *,
};

const SUBSCRIPTION: &str = "7f105c7d-2dc5-4530-97cd-4e7ae6534c07";

/// No checks.
fn checks() -> Checks {
    Checks { client_state: None, tenants: Vec::new(), subscriptions: Vec::new(), tokens: None }
}

/// A notification with these fields changed.
fn item(changes: Value) -> Value {
    let mut item = json!({
        "subscriptionId": SUBSCRIPTION,
        "subscriptionExpirationDateTime": "2026-11-30T11:00:00.0000000Z",
        "changeType": "updated",
        "clientState": "s3cret",
        "tenantId": TENANT,
        "resource": "Users/1/Events/2",
        "resourceData": { "@odata.type": "#Microsoft.Graph.Event", "id": "2" },
    });
    let Value::Object(changes) = changes else { panic!("not an object") };
    for (name, value) in changes {
        item.as_object_mut().unwrap().insert(name, value);
    }
    item
}

fn body(items: &[Value]) -> Bytes {
    json!({ "value": items }).to_string().into()
}

async fn judge(checks: &Checks, body: impl Into<Bytes>) -> Result<Judged, Undecided> {
    checks.judge(&body.into()).await
}

/// The one reason why a single notification is refused, if it is.
async fn refusal(checks: &Checks, item: &str) -> Option<Refusal> {
    let judged = judge(checks, format!(r#"{{"value":[{item}]}}"#)).await.unwrap();
    assert_eq!(judged.accepted == Accepted::None, judged.refused.values().sum::<u64>() == 1);
    judged.refused.into_keys().next()
}

#[tokio::test]
async fn a_body_of_which_all_passes_stays_as_it_is() {
    for text in [
        format!(r#"{{"value":[{{"subscriptionId":"{SUBSCRIPTION}"}}]}}"#),
        format!("\u{feff} {{ \"x\": [1e999], \"value\" :\n[{} ] }} ", item(json!({}))),
        format!(r#"{{"v\u0061lue":[{{"subscription\u0049d":"{SUBSCRIPTION}"}}]}}"#),
        format!(r#"{{"validationTokens":null,"value":[{}]}}"#, item(json!({}))),
    ] {
        let judged = judge(&checks(), text.clone()).await.unwrap();
        assert_eq!(judged.accepted, Accepted::All, "{text}");
        assert_eq!(judged.lanes, [SUBSCRIPTION], "{text}");
    }
}

#[tokio::test]
async fn each_subscription_is_a_lane_whatever_happened_to_it() {
    let items = [
        item(json!({ "subscriptionId": "b" })),
        item(json!({ "subscriptionId": "a" })),
        item(json!({ "subscriptionId": "b", "lifecycleEvent": "missed" })),
    ];
    assert_eq!(judge(&checks(), body(&items)).await.unwrap().lanes, ["b", "a"]);
}

#[tokio::test]
async fn what_is_not_a_collection_of_notifications_is_refused() {
    let many = vec![json!(1); 10_001];
    for (text, reason) in [
        ("", Undecided::NotJson),
        ("{", Undecided::NotJson),
        ("<a/>", Undecided::NotJson),
        (r#"{"value":[1]}x"#, Undecided::NotJson),
        (r#"{"value":[1,]}"#, Undecided::NotJson),
        ("[]", Undecided::Malformed),
        ("{}", Undecided::Malformed),
        (r#"{"value":null}"#, Undecided::Malformed),
        (r#"{"value":{}}"#, Undecided::Malformed),
        (r#"{"value":[1],"value":[2]}"#, Undecided::Malformed),
        (r#"{"value":[1],"Value":[2]}"#, Undecided::Malformed),
        (r#"{"value":[]}"#, Undecided::Empty),
        (&json!({ "value": many }).to_string(), Undecided::TooManyItems),
    ] {
        let judged = judge(&checks(), text.to_owned()).await;
        assert_eq!(judged.unwrap_err(), reason, "{text:.40}");
        assert_eq!(reason.status(), 400);
    }
    assert_eq!(
        judge(&checks(), b"{\"value\":[1],\"x\":\"\xff\"}".to_vec()).await.unwrap_err().name(),
        "not_json"
    );
}

#[tokio::test]
async fn a_notification_that_cannot_be_judged_is_refused() {
    let long = format!(r#"{{"subscriptionId":"{}"}}"#, "a".repeat(129));
    for text in [
        "1",
        "null",
        "[]",
        "{}",
        r#"{"subscriptionId":null}"#,
        r#"{"subscriptionId":1}"#,
        r#"{"subscriptionId":""}"#,
        r#"{"subscriptionId":"a b"}"#,
        r#"{"subscriptionId":"a\u0000"}"#,
        r#"{"subscriptionId":"a","clientState":1}"#,
        r#"{"subscriptionId":"a","clientState":"\ud800"}"#,
        r#"{"subscriptionId":"a","tenantId":"x"}"#,
        &long,
    ] {
        assert_eq!(refusal(&checks(), text).await, Some(Refusal::Malformed), "{text}");
    }
}

#[tokio::test]
async fn a_field_that_is_judged_stands_there_once() {
    for text in [
        r#"{"subscriptionId":"a","subscriptionId":"a"}"#,
        r#"{"subscriptionId":"a","SubscriptionID":"b"}"#,
        r#"{"subscriptionId":"a","clientState":"x","client\u0053tate":"x"}"#,
        r#"{"subscriptionId":"a","tenantid":"x"}"#,
    ] {
        assert_eq!(refusal(&checks(), text).await, Some(Refusal::Ambiguous), "{text}");
    }
    let others = r#"{"subscriptionId":"a","x":1,"x":2,"y":{"subscriptionId":"b"}}"#;
    assert_eq!(refusal(&checks(), others).await, None);
}

#[tokio::test]
async fn the_client_state_has_to_be_one_of_the_secrets() {
    let checks = Checks { client_state: Some("old\ns3cret".into()), ..checks() };
    for (state, expected) in [
        (json!("s3cret"), None),
        (json!("old"), None),
        (json!("s3cre"), Some(Refusal::ClientState)),
        (json!("S3CRET"), Some(Refusal::ClientState)),
        (json!(""), Some(Refusal::ClientState)),
        (json!(null), Some(Refusal::ClientState)),
    ] {
        let item = item(json!({ "clientState": state })).to_string();
        assert_eq!(refusal(&checks, &item).await, expected, "{state}");
    }
    let without = format!(r#"{{"subscriptionId":"{SUBSCRIPTION}"}}"#);
    assert_eq!(refusal(&checks, &without).await, Some(Refusal::ClientState));
}

#[tokio::test]
async fn tenants_and_subscriptions_have_to_be_allowed() {
    let checks = Checks {
        tenants: vec![TENANT.parse().unwrap()],
        subscriptions: vec![SUBSCRIPTION.to_owned()],
        ..checks()
    };
    let (upper, other) = (TENANT.to_uppercase(), Uuid::nil());
    for (changes, expected) in [
        (json!({}), None),
        (json!({ "tenantId": upper, "subscriptionId": SUBSCRIPTION.to_uppercase() }), None),
        (json!({ "tenantId": other }), Some(Refusal::Tenant)),
        (json!({ "tenantId": null }), Some(Refusal::Tenant)),
        (json!({ "subscriptionId": other }), Some(Refusal::Subscription)),
    ] {
        let item = item(changes.clone()).to_string();
        assert_eq!(refusal(&checks, &item).await, expected, "{changes}");
    }
}

#[tokio::test]
async fn what_passes_goes_on_byte_for_byte() {
    let checks = Checks { client_state: Some("right".into()), ..checks() };
    let good = |id| format!("{{\"subscriptionId\" : \"{id}\",\n \"clientState\":\"r\\u0069ght\"}}");
    let bad = r#"{"subscriptionId":"c","clientState":"wrong"}"#;
    let (first, second) = (good("a"), good("b"));
    let text = format!(
        "\u{feff}{{\"validationTokens\":[\"x\"], \"value\": [ {bad}, {first} ,{bad}, {second}, 1 ],\"x\":1}}\n"
    );
    let judged = judge(&checks, text).await.unwrap();
    let rest = format!(
        "\u{feff}{{\"validationTokens\":[\"x\"], \"value\": [{first},{second}],\"x\":1}}\n"
    );
    assert_eq!(judged.accepted, Accepted::Some(rest.into()));
    assert_eq!(judged.lanes, ["a", "b"]);
    assert_eq!(judged.refused, [(Refusal::Malformed, 1), (Refusal::ClientState, 2)].into());

    let nothing = judge(&checks, format!(r#"{{"value":[{bad}]}}"#)).await.unwrap();
    assert_eq!((nothing.accepted, nothing.lanes), (Accepted::None, Vec::new()));
}

/// Checks of tokens, with keys from these answers.
fn token_checks(keys: Option<String>) -> Checks {
    let tokens = Tokens::new(scripted([keys]).0, &[AUDIENCE.to_owned()]);
    Checks { tokens: Some(tokens), ..checks() }
}

fn rich(changes: Value) -> Value {
    let mut rich = item(changes);
    rich["encryptedContent"] = json!({ "data": "eA==", "dataKey": "eA==" });
    rich
}

#[tokio::test]
async fn data_need_a_token_of_their_tenant() {
    let signer = Signer::new();
    let checks = token_checks(Some(signer.set()));
    let judge_with = async |tokens: Value, items: &[Value]| {
        let body = json!({ "value": items, "validationTokens": tokens }).to_string();
        judge(&checks, body).await.unwrap()
    };
    let good = signer.token(&json!({}));
    let forged = Signer::new().token(&json!({}));
    let both = [rich(json!({})), item(json!({}))];
    assert_eq!(judge_with(json!([good]), &both).await.accepted, Accepted::All);
    assert_eq!(judge_with(json!([forged, good]), &both).await.accepted, Accepted::All);
    let other = [rich(json!({ "tenantId": Uuid::nil() })), rich(json!({ "tenantId": null }))];
    for (tokens, items) in [
        (json!([good]), &other),
        (json!([forged]), &[rich(json!({})), rich(json!({}))]),
        (json!([]), &other),
        (json!(null), &other),
    ] {
        let judged = judge_with(tokens.clone(), items).await;
        assert_eq!(judged.refused, [(Refusal::Token, 2)].into(), "{tokens}");
    }
    let judged = judge_with(json!([forged]), &both).await;
    assert_eq!(judged.bad_tokens, [(BadToken::Signature, 1)].into());
    assert!(matches!(judged.accepted, Accepted::Some(_)));
}

#[tokio::test]
async fn without_keys_data_are_undecided_and_all_else_is_not() {
    let checks = token_checks(None);
    let token = Signer::new().token(&json!({}));
    let body = |item| json!({ "value": [item], "validationTokens": [token] }).to_string();
    let undecided = judge(&checks, body(rich(json!({})))).await.unwrap_err();
    assert_eq!((undecided, undecided.status().as_u16()), (Undecided::NoKeys, 503));
    assert_eq!(judge(&checks, body(item(json!({})))).await.unwrap().accepted, Accepted::All);
    let without = json!({ "value": [rich(json!({}))] }).to_string();
    assert_eq!(judge(&checks, without).await.unwrap().accepted, Accepted::None);
}

#[tokio::test]
async fn tokens_that_cannot_be_read_refuse_the_request() {
    let checks = token_checks(None);
    for (tokens, reason) in [
        (json!("x"), Undecided::Malformed),
        (json!([1]), Undecided::Malformed),
        (json!([null]), Undecided::Malformed),
        (json!(vec!["x"; 101]), Undecided::TooManyTokens),
    ] {
        let body = json!({ "value": [rich(json!({}))], "validationTokens": tokens }).to_string();
        assert_eq!(judge(&checks, body).await.unwrap_err(), reason);
    }
}

#[test]
fn checks_are_loaded_as_configured() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret\n").unwrap();
    let config = Graph {
        handshake: crate::config::Handshake::Local,
        client_state_file: Some(file.path().to_owned()),
        tenants: vec![TENANT.parse().unwrap()],
        subscriptions: vec![SUBSCRIPTION.to_owned()],
        tokens: Some(crate::config::Tokens {
            audiences: vec![AUDIENCE.to_owned()],
            keys_url: "https://keys.example.com/".to_owned(),
            ca_file: None,
        }),
    };
    let checks = Checks::load(&config, &Feed::default()).unwrap();
    assert!(checks.keys().is_some());
    let item = item(json!({ "clientState": "other" })).to_string();
    assert!(matches!(
        checks.check(serde_json::from_str(&item).unwrap()),
        Err(Refusal::ClientState)
    ));
    std::fs::write(file.path(), "").unwrap();
    assert!(matches!(Checks::load(&config, &Feed::default()), Err(LoadError::ClientState(_))));
}

/// Any JSON, with the names that matter in it.
fn any_json() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "value",
        "Value",
        "validationTokens",
        "subscriptionId",
        "clientState",
        "tenantId",
        "x",
    ]);
    let leaf = prop::sample::select(vec!["null", "1", "\"a\"", "\"right\"", "true", "[]", "{}"]);
    leaf.prop_map(str::to_owned).prop_recursive(5, 40, 6, move |inner| {
        let member = (name.clone(), inner.clone()).prop_map(|(n, v)| format!("\"{n}\":{v}"));
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec(member, 0..6).prop_map(|list| format!("{{{}}}", list.join(","))),
        ]
    })
}

fn judge_now(checks: &Checks, body: &Bytes) -> Result<Judged, Undecided> {
    checks.judge(body).now_or_never().expect("nothing to wait for")
}

proptest! {
    #[test]
    fn any_bytes_are_judged_or_refused(body in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(&body);
        let _ = judge_now(&checks(), &body.into());
    }

    #[test]
    fn any_json_is_judged_or_refused(text in any_json()) {
        let _ = read(text.as_bytes());
        let _ = judge_now(&checks(), &text.into());
    }

    #[test]
    fn what_goes_on_is_what_passes_and_passes_again(
        choices in prop::collection::vec((any::<bool>(), 0u8..3, any::<String>()), 1..20),
        tokens in any_json(),
    ) {
        let checks = Checks { client_state: Some("right".into()), ..checks() };
        let items: Vec<_> = choices
            .iter()
            .map(|(passes, id, text)| {
                let state = if *passes { "right" } else { "wrong" };
                item(json!({ "subscriptionId": id.to_string(), "clientState": state, "x": text }))
            })
            .collect();
        let body = Bytes::from(format!(
            r#"{{"validationTokens":{tokens},"value":{}}}"#,
            serde_json::to_string_pretty(&items).unwrap()
        ));
        let judged = judge_now(&checks, &body).unwrap();
        let passing: Vec<_> =
            items.iter().zip(&choices).filter(|(_, (p, ..))| *p).map(|(item, _)| item).collect();
        let passed = match &judged.accepted {
            Accepted::All => body,
            Accepted::Some(body) => body.clone(),
            Accepted::None => {
                prop_assert!(passing.is_empty());
                return Ok(());
            }
        };
        let again = judge_now(&checks, &passed).unwrap();
        prop_assert_eq!(&again.accepted, &Accepted::All);
        prop_assert_eq!(&again.lanes, &judged.lanes);
        let value: Value = serde_json::from_slice(&passed).unwrap();
        prop_assert_eq!(value["value"].as_array().unwrap().iter().collect::<Vec<_>>(), passing);
    }
}
