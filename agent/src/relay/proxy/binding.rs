//! Credentials that hold for a connection, and not for a request.
//!
//! A scheme is taken to authenticate the connection unless it is known to be about
//! one request. So NTLM, Negotiate and Kerberos bind, and so does whatever comes
//! after them.

use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};

/// Schemes whose credentials come with each request (RFC 7617, 6750, 7616).
const OF_A_REQUEST: [&[u8]; 3] = [b"basic", b"bearer", b"digest"];

/// Whether a request carries credentials that will hold for its connection.
pub(in crate::relay) fn authenticates(request: &HeaderMap) -> bool {
    request.get_all(AUTHORIZATION).iter().any(|field| binds(field.as_bytes()))
}

/// Whether an answer asks for such credentials, or goes on with them.
pub(in crate::relay) fn challenges(answer: &HeaderMap) -> bool {
    answer.get_all(WWW_AUTHENTICATE).iter().any(|field| challenge_binds(field.as_bytes()))
}

fn binds(credentials: &[u8]) -> bool {
    let scheme = credentials.trim_ascii_start().split(|byte| !is_token(*byte)).next();
    let scheme = scheme.unwrap_or_default();
    !OF_A_REQUEST.iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// A field may hold several challenges, behind commas that also stand between the
/// parameters of one: what has a `=` is a parameter.
fn challenge_binds(field: &[u8]) -> bool {
    field.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|part| {
        let mut words = part.split(u8::is_ascii_whitespace);
        let first = words.next().unwrap_or_default();
        !first.is_empty() && first.iter().all(|byte| is_token(*byte)) && binds(first)
    })
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn of(name: HeaderName, fields: &[&str]) -> HeaderMap {
        let field = |text: &&str| (name.clone(), HeaderValue::from_str(text).unwrap());
        fields.iter().map(field).collect()
    }

    #[test]
    fn ntlm_and_negotiate_hold_for_the_connection_however_they_are_written() {
        for fields in [
            &["NTLM TlRMTVNTUAABAAAA"][..],
            &["ntlm TlRM"],
            &["Negotiate YII="],
            &["NEGOTIATE"],
            &["Kerberos YII="],
            &["Basic dTpw", "NTLM TlRM"],
            &["Something-New x"],
            &[""],
        ] {
            assert!(authenticates(&of(AUTHORIZATION, fields)), "{fields:?}");
        }
    }

    #[test]
    fn basic_bearer_and_digest_hold_for_the_request() {
        for fields in [&[][..], &["Basic dTpw"], &["bearer ey.J"], &["Digest username=\"NTLM\""]] {
            assert!(!authenticates(&of(AUTHORIZATION, fields)), "{fields:?}");
        }
    }

    #[test]
    fn a_challenge_is_seen_among_others() {
        for fields in [
            &["Negotiate", "NTLM"][..],
            &["Basic realm=\"mail\"", "NTLM"],
            &["Basic realm=\"mail\", ntlm"],
            &["Bearer client_id=\"a\", trusted_issuers=\"b\"", "Negotiate oYG2"],
            &["Digest realm=\"r\", nonce=\"n\", NTLM TlRM"],
        ] {
            assert!(challenges(&of(WWW_AUTHENTICATE, fields)), "{fields:?}");
        }
        for fields in [
            &[][..],
            &["Basic realm=\"mail\""],
            &["Digest realm=\"r\", nonce=\"n\", qop=\"auth\""],
            &["Bearer client_id=\"a\", trusted_issuers=\"b\""],
        ] {
            assert!(!challenges(&of(WWW_AUTHENTICATE, fields)), "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_before_or_behind_hide_ntlm(
            before in "(Basic dTpw|Bearer e|)",
            scheme in "[nN][tT][lL][mM]|[nN][eE][gG][oO][tT][iI][aA][tT][eE]",
            behind in "( [A-Za-z0-9+/=]{0,40})?",
        ) {
            let text = format!("{scheme}{behind}");
            let both = [before.as_str(), &text];
            prop_assert!(authenticates(&of(AUTHORIZATION, &both)));
            prop_assert!(challenges(&of(WWW_AUTHENTICATE, &both)));
        }
    }
}
