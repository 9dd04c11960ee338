use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp, jwk::Jwk};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{super::keys::tests::scripted, *};

pub(in crate::relay::graph) const TENANT: &str = "84bd8158-6d4d-4958-8b9f-9d6445542f95";
pub(in crate::relay::graph) const AUDIENCE: &str = "8e460676-ae3f-4b1e-8790-ee0fb5d6148f";

/// Stands in for Microsoft.
pub(in crate::relay::graph) struct Signer(EncodingKey);

impl Signer {
    pub(in crate::relay::graph) fn new() -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        // The RSAPrivateKey follows 26 bytes that say that it is one.
        Self(EncodingKey::from_rsa_der(&der.as_ref()[26..]))
    }

    /// The set that it publishes, with its key as "key".
    pub(in crate::relay::graph) fn set(&self) -> String {
        let mut key = Jwk::from_encoding_key(&self.0, Algorithm::RS256).unwrap();
        key.common.key_id = Some("key".to_owned());
        json!({ "keys": [key] }).to_string()
    }

    fn sign(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.0).unwrap()
    }

    /// A token with these claims changed.
    pub(in crate::relay::graph) fn token(&self, changes: &Value) -> String {
        self.sign(&header(), &claims(changes))
    }
}

fn header() -> Header {
    Header { kid: Some("key".to_owned()), ..Header::new(Algorithm::RS256) }
}

fn claims(changes: &Value) -> Value {
    let now = get_current_timestamp();
    let mut claims = json!({
        "aud": AUDIENCE,
        "iss": format!("https://sts.windows.net/{TENANT}/"),
        "iat": now, "nbf": now, "exp": now.saturating_add(3600),
        "appid": PUBLISHER, "appidacr": "2", "tid": TENANT, "ver": "1.0",
    });
    for (name, value) in changes.as_object().into_iter().flatten() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

fn tokens(signer: &Signer) -> Tokens {
    Tokens::new(scripted([Some(signer.set())]).0, &["other".to_owned(), AUDIENCE.to_owned()])
}

async fn check(tokens: &Tokens, token: &str) -> Result<Uuid, BadToken> {
    tokens.check(token).await.unwrap()
}

#[tokio::test]
async fn graphs_own_tokens_prove_their_tenant() {
    let signer = Signer::new();
    let tokens = tokens(&signer);
    let tenant = TENANT.parse().unwrap();
    let version_2 = json!({
        "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        "azp": PUBLISHER, "appid": null, "ver": "2.0",
    });
    let clocks_apart = get_current_timestamp() - 200;
    for changes in [
        json!({}),
        version_2,
        json!({ "exp": clocks_apart }),
        json!({ "nbf": clocks_apart + 400 }),
        json!({ "nbf": null }),
        json!({ "aud": [AUDIENCE] }),
    ] {
        assert_eq!(check(&tokens, &signer.token(&changes)).await, Ok(tenant), "{changes}");
    }
}

#[tokio::test]
async fn a_token_that_anything_is_wrong_with_proves_nothing() {
    let signer = Signer::new();
    let tokens = tokens(&signer);
    let other = "7f105c7d-2dc5-4530-97cd-4e7ae6534c07";
    let now = get_current_timestamp();
    for (changes, reason) in [
        (json!({ "exp": now - 400 }), BadToken::Time),
        (json!({ "nbf": now + 400 }), BadToken::Time),
        (json!({ "exp": null }), BadToken::Malformed),
        (json!({ "exp": "soon" }), BadToken::Malformed),
        (json!({ "aud": other }), BadToken::Audience),
        (json!({ "aud": null }), BadToken::Malformed),
        (json!({ "iss": null }), BadToken::Malformed),
        (json!({ "iss": "https://sts.windows.net/" }), BadToken::Issuer),
        (json!({ "iss": format!("https://sts.windows.net/{other}/") }), BadToken::Issuer),
        (json!({ "iss": format!("https://sts.example.com/{TENANT}/") }), BadToken::Issuer),
        (json!({ "iss": format!("https://sts.windows.net/{TENANT}/v2.0") }), BadToken::Issuer),
        (json!({ "tid": "x", "iss": "https://sts.windows.net/x/" }), BadToken::Issuer),
        (json!({ "tid": null }), BadToken::Malformed),
        (json!({ "appid": other }), BadToken::Publisher),
        (json!({ "appid": null }), BadToken::Publisher),
        (json!({ "azp": other }), BadToken::Publisher),
    ] {
        assert_eq!(check(&tokens, &signer.token(&changes)).await, Err(reason), "{changes}");
    }
}

#[tokio::test]
async fn only_microsofts_signature_counts() {
    let signer = Signer::new();
    let tokens = tokens(&signer);
    let forged = Signer::new().token(&json!({}));
    assert_eq!(check(&tokens, &forged).await, Err(BadToken::Signature));
    let genuine = signer.token(&json!({}));
    let (signed, _) = genuine.rsplit_once('.').unwrap();
    let (_, signature) = forged.rsplit_once('.').unwrap();
    assert_eq!(check(&tokens, &format!("{signed}.{signature}")).await, Err(BadToken::Signature));
    assert_eq!(check(&tokens, &format!("{signed}.")).await, Err(BadToken::Signature));
    let unknown = Header { kid: Some("other".to_owned()), ..header() };
    let unknown = signer.sign(&unknown, &claims(&json!({})));
    assert_eq!(check(&tokens, &unknown).await, Err(BadToken::UnknownKey));
}

#[tokio::test]
async fn a_token_cannot_choose_how_it_is_checked() {
    let signer = Signer::new();
    let tokens = tokens(&signer);
    let secret = EncodingKey::from_secret(signer.set().as_bytes());
    let symmetric = Header { kid: Some("key".to_owned()), ..Header::new(Algorithm::HS256) };
    let symmetric = encode(&symmetric, &claims(&json!({})), &secret).unwrap();
    assert_eq!(check(&tokens, &symmetric).await, Err(BadToken::Malformed));
    let genuine = signer.token(&json!({}));
    let (_, rest) = genuine.split_once('.').unwrap();
    // {"alg":"none","kid":"key"}
    let none = format!("eyJhbGciOiJub25lIiwia2lkIjoia2V5In0.{rest}");
    assert_eq!(check(&tokens, &none).await, Err(BadToken::Malformed));
    for header in [
        Header { kid: None, ..header() },
        Header { crit: Some(vec!["b64".to_owned()]), ..header() },
        Header { kid: Some("key".to_owned()), ..Header::new(Algorithm::RS384) },
    ] {
        let token = signer.sign(&header, &claims(&json!({})));
        assert_eq!(check(&tokens, &token).await, Err(BadToken::Malformed), "{header:?}");
    }
}

#[tokio::test]
async fn a_token_that_is_too_long_is_not_looked_at() {
    let signer = Signer::new();
    let tokens = tokens(&signer);
    let long = signer.token(&json!({ "x": "x".repeat(LONGEST) }));
    assert_eq!(check(&tokens, &long).await, Err(BadToken::Malformed));
}

#[tokio::test]
async fn several_tokens_prove_several_tenants() {
    let signer = Signer::new();
    let other = "7f105c7d-2dc5-4530-97cd-4e7ae6534c07";
    let issuer = format!("https://sts.windows.net/{other}/");
    let given = [
        signer.token(&json!({})).into(),
        signer.token(&json!({ "tid": other, "iss": issuer })).into(),
        "x".into(),
        "".into(),
    ];
    let proof = tokens(&signer).prove(&given).await.unwrap();
    assert_eq!(proof.tenants, [TENANT, other].map(|tenant| tenant.parse().unwrap()).into());
    assert_eq!(proof.refused, [(BadToken::Malformed, 2)].into());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = key_id(&text);
    }

    #[test]
    fn any_header_is_read_or_refused(text in "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,4}\\.") {
        let _ = key_id(&text);
    }
}
