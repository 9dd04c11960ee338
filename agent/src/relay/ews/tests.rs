use hyper::Request;

use super::{
    notification::tests::{EVENT, STATUS, message, notification},
    *,
};
use crate::config::QuerySecret;

fn checks() -> Checks {
    Checks { caller_data: None, query_secret: None, subscriptions: Vec::new() }
}

/// A request as Exchange makes it, with these fields in place of its own.
fn guard(
    checks: &Checks,
    method: &str,
    uri: &str,
    changes: &[(&str, &[&str])],
) -> Result<(), BadHead> {
    let usual =
        [("host", "a"), ("content-type", "text/xml; charset=utf-8"), ("soapaction", ACTION)];
    let kept = usual.iter().filter(|(name, _)| !changes.iter().any(|(other, _)| name == other));
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in kept {
        request = request.header(*name, *value);
    }
    for (name, values) in changes {
        for value in *values {
            request = request.header(*name, *value);
        }
    }
    let head = request.body(()).unwrap().into_parts().0;
    let target = Target::parse(&head).unwrap();
    checks.guard(&head, &target)
}

#[test]
fn exchanges_own_requests_pass() {
    let quoted = format!("\"{ACTION}\"");
    for changes in [
        &[][..],
        &[("soapaction", &[quoted.as_str()][..])],
        &[("content-type", &["TEXT/XML"])],
        &[("content-type", &["text/xml ;charset=\"utf-8\""])],
        &[("callerdata", &["x", "y"])],
    ] {
        assert_eq!(guard(&checks(), "POST", "/?x", changes), Ok(()), "{changes:?}");
    }
}

#[test]
fn what_exchange_does_not_send_is_refused() {
    assert_eq!(guard(&checks(), "GET", "/", &[]), Err(BadHead::Method));
    for values in [
        &[][..],
        &["application/soap+xml"],
        &["text/xmlx"],
        &["text/xml, text/xml"],
        &["text/xml", "text/xml"],
    ] {
        let changes = [("content-type", values)];
        assert_eq!(guard(&checks(), "POST", "/", &changes), Err(BadHead::ContentType));
    }
    let half = format!("\"{ACTION}");
    for values in
        [&[][..], &["x"], &[half.as_str()], &["\"\""], &["SendNotification"], &[ACTION; 2]]
    {
        let changes = [("soapaction", values)];
        assert_eq!(guard(&checks(), "POST", "/", &changes), Err(BadHead::SoapAction));
    }
}

#[test]
fn secrets_have_to_be_known() {
    let caller = Checks { caller_data: Some("old\nnew".into()), ..checks() };
    let with = |values| guard(&caller, "POST", "/", &[("callerdata", values)]);
    assert_eq!(with(&["old"]), Ok(()));
    assert_eq!(with(&["new"]), Ok(()));
    for values in [&[][..], &["x"], &[""], &["new", "new"]] {
        assert_eq!(with(values), Err(BadHead::CallerData), "{values:?}");
    }
    let query = Checks { query_secret: Some(("key".to_owned(), "n ew".into())), ..checks() };
    assert_eq!(guard(&query, "POST", "/?a&k%65y=n+ew&key2", &[]), Ok(()));
    for uri in ["/", "/?key", "/?key=", "/?key=x", "/?KEY=n+ew", "/?key=n+ew&key=n+ew"] {
        assert_eq!(guard(&query, "POST", uri, &[]), Err(BadHead::QuerySecret), "{uri}");
    }
}

#[test]
fn the_captured_request_passes() {
    let capture =
        include_str!("../../../../tests/data/samples/ews-sendnotification-exchangeonline.http");
    let (head, body) = capture.split_once("\n\n").or(capture.split_once("\r\n\r\n")).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ');
    let mut request = Request::builder().method(first.next().unwrap()).uri(first.next().unwrap());
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let head = request.body(()).unwrap().into_parts().0;
    assert_eq!(checks().guard(&head, &Target::parse(&head).unwrap()), Ok(()));
    let judged = checks().judge(body.as_bytes()).unwrap();
    assert_eq!(judged.lanes, ["U1VCU0NSSVBUSU9OLUlELVBMQUNFSE9MREVS"]);
    assert!(judged.once(body.as_bytes()).is_some());
}

#[test]
fn subscriptions_have_to_be_allowed() {
    let checks = Checks { subscriptions: vec!["a".to_owned(), "b".to_owned()], ..checks() };
    let judge = |ids: &[&str]| {
        let all: String = ids.iter().map(|id| notification(id, "w", EVENT)).collect();
        checks.judge(message(&all).as_bytes()).map(|judged| judged.lanes)
    };
    assert_eq!(judge(&["b", "a", "b"]), Ok(vec!["b".to_owned(), "a".to_owned()]));
    assert_eq!(judge(&["a", "c"]), Err(Refusal::Subscription));
    assert_eq!(judge(&["A"]), Err(Refusal::Subscription));
}

#[test]
fn a_repetition_is_recognised() {
    let once = |id: &str, watermark: &str, event: &str| {
        let body = message(&notification(id, watermark, event));
        checks().judge(body.as_bytes()).unwrap().once(body.as_bytes()).unwrap()
    };
    let first = once("a", "w", EVENT);
    assert_eq!(first, once("a", "w", EVENT));
    assert_eq!(first.len(), 64);
    assert_ne!(first, once("b", "w", EVENT));
    assert_ne!(first, once("a", "x", EVENT));
    assert_ne!(first, once("a", "w", &[EVENT, EVENT].concat()));
}

#[test]
fn equal_signs_of_life_all_count() {
    let once_of = |body: String| {
        let body = body.as_bytes();
        checks().judge(body).unwrap().once(body)
    };
    let once = |events: &str| once_of(message(&notification("a", "w", events)));
    assert_eq!(once(STATUS), None);
    assert_eq!(once(""), None);
    assert!(once(&[STATUS, EVENT].concat()).is_some());
    let both = [notification("a", "w", STATUS), notification("b", "w", EVENT)].concat();
    assert!(once_of(message(&both)).is_some());
}

#[test]
fn checks_are_loaded_as_configured() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret").unwrap();
    let config = Ews {
        delivery: crate::config::Delivery::PassThrough,
        caller_data_file: Some(file.path().to_owned()),
        query_secret: Some(QuerySecret { name: "key".to_owned(), file: file.path().to_owned() }),
        subscriptions: vec!["a".to_owned()],
    };
    let checks = Checks::load(&config).unwrap();
    let caller = [("callerdata", &["s3cret"][..])];
    assert_eq!(guard(&checks, "POST", "/?key=s3cret", &caller), Ok(()));
    assert_eq!(guard(&checks, "POST", "/?key=s3cret", &[]), Err(BadHead::CallerData));
    assert_eq!(guard(&checks, "POST", "/", &caller), Err(BadHead::QuerySecret));
    assert_eq!(
        checks.judge(message(&notification("b", "w", EVENT)).as_bytes()),
        Err(Refusal::Subscription)
    );
    std::fs::write(file.path(), "").unwrap();
    assert!(matches!(Checks::load(&config), Err(LoadError::CallerData(_))));
}
