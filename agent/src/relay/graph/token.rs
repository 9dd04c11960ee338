//! `validationTokens`: that Graph, and nobody else, sent data of a tenant.
//!
//! A token is a JWT that Microsoft signed for the application of the receiver. It
//! must be Graph's own ([`PUBLISHER`]), for one of the configured applications, of
//! the tenant that it is used for, and valid now. The algorithm is fixed; a token
//! cannot choose another one, or none.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;
use uuid::Uuid;

use super::keys::{Keys, NoKeys};

/// The application that publishes change notifications: Graph itself.
pub const PUBLISHER: &str = "0bf30f3b-4a52-48df-9a82-234910c4a086";

/// Longest token; Microsoft's have about 1.5 KB.
const LONGEST: usize = 8 << 10;
/// How far clocks may be apart, in seconds.
const LEEWAY: u64 = 300;

/// What tokens have to be.
#[derive(Debug)]
pub struct Tokens {
    keys: Arc<Keys>,
    validation: Validation,
}

/// What the tokens of a request prove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Tenants whose data Graph sends.
    pub tenants: HashSet<Uuid>,
    /// How many tokens were refused for what.
    pub refused: BTreeMap<BadToken, u64>,
}

/// Why a token proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BadToken {
    /// It is too long, no JWT, of another algorithm, or does not name its key.
    Malformed,
    /// Microsoft publishes no such key.
    UnknownKey,
    /// It was not signed with that key.
    Signature,
    /// It is not valid any more, or not yet.
    Time,
    /// It is for another application.
    Audience,
    /// It does not come from the tenant that it names.
    Issuer,
    /// It was made for another sender than Graph.
    Publisher,
}

impl BadToken {
    /// The name in metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Time => "time",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Publisher => "publisher",
        }
    }
}

/// What is read of a token, beside what the library checks.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    tid: String,
    /// The sender, in tokens of version 1.0.
    appid: Option<String>,
    /// The sender, in tokens of version 2.0.
    azp: Option<String>,
}

impl Tokens {
    pub(super) fn new(keys: Arc<Keys>, audiences: &[String]) -> Self {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_required_spec_claims(&["exp", "aud", "iss"]);
        validation.set_audience(audiences);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        Self { keys, validation }
    }

    pub(super) const fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// What these tokens prove.
    ///
    /// # Errors
    ///
    /// [`NoKeys`].
    pub(super) async fn prove(&self, tokens: &[Cow<'_, str>]) -> Result<Proof, NoKeys> {
        let mut proof = Proof::default();
        for token in tokens {
            match self.check(token).await? {
                Ok(tenant) => drop(proof.tenants.insert(tenant)),
                Err(reason) => {
                    let count = proof.refused.entry(reason).or_default();
                    *count = count.saturating_add(1);
                }
            }
        }
        Ok(proof)
    }

    /// The tenant that a token is from.
    async fn check(&self, token: &str) -> Result<Result<Uuid, BadToken>, NoKeys> {
        let Some(id) = key_id(token) else { return Ok(Err(BadToken::Malformed)) };
        let Some(key) = self.keys.find(&id).await? else { return Ok(Err(BadToken::UnknownKey)) };
        let claims = decode::<Claims>(token, &key, &self.validation);
        Ok(claims.map_err(|error| reason(error.kind())).and_then(|token| token.claims.tenant()))
    }
}

impl Claims {
    fn tenant(&self) -> Result<Uuid, BadToken> {
        let tenant = Uuid::try_parse(&self.tid).map_err(|_| BadToken::Issuer)?;
        let (first, second) = (
            self.iss.strip_prefix("https://sts.windows.net/").and_then(|i| i.strip_suffix('/')),
            self.iss
                .strip_prefix("https://login.microsoftonline.com/")
                .and_then(|i| i.strip_suffix("/v2.0")),
        );
        if first.or(second) != Some(self.tid.as_str()) {
            return Err(BadToken::Issuer);
        }
        let publishers = [&self.appid, &self.azp].into_iter().flatten();
        let mut publishers = publishers.peekable();
        if publishers.peek().is_none() || publishers.any(|publisher| publisher != PUBLISHER) {
            return Err(BadToken::Publisher);
        }
        Ok(tenant)
    }
}

/// The tenant that claims are from. For fuzzing: it must return, whatever they are; they
/// come behind a signature of Microsoft's.
///
/// # Errors
///
/// [`BadToken`].
#[cfg(fuzzing)]
pub fn tenant(claims: &[u8]) -> Result<Uuid, BadToken> {
    let claims: Claims = serde_json::from_slice(claims).map_err(|_| BadToken::Malformed)?;
    claims.tenant()
}

/// The key that a token names, if it is one of the right kind. For fuzzing, too:
/// it must return, whatever the text is.
#[must_use]
pub fn key_id(token: &str) -> Option<String> {
    if token.len() > LONGEST {
        return None;
    }
    let header = decode_header(token).ok()?;
    // Nobody here knows what such a token holds to be critical.
    (header.alg == Algorithm::RS256 && header.crit.is_none()).then_some(header.kid).flatten()
}

const fn reason(kind: &ErrorKind) -> BadToken {
    match kind {
        ErrorKind::InvalidSignature => BadToken::Signature,
        ErrorKind::ExpiredSignature | ErrorKind::ImmatureSignature => BadToken::Time,
        ErrorKind::InvalidAudience => BadToken::Audience,
        _ => BadToken::Malformed,
    }
}

#[cfg(test)]
pub(super) mod tests;
