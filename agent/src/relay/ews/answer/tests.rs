use proptest::prelude::*;

use super::*;

const OK: &str = "<m:SubscriptionStatus xmlns:m='urn:x'>OK</m:SubscriptionStatus>";

fn read(body: &str) -> Answer {
    read_answer(StatusCode::OK, body.as_bytes())
}

#[test]
fn exchanges_own_example_is_understood() {
    let sample =
        include_str!("../../../../../tests/data/samples/ews-sendnotificationresult-ok.xml");
    assert_eq!(read(sample), Answer::Ok);
}

#[test]
fn the_answers_of_a_well_known_listener_are_understood() {
    // As exchangelib 5.6.0 writes them.
    for (status, answer) in [("OK", Answer::Ok), ("Unsubscribe", Answer::Unsubscribe)] {
        let body = format!(
            "<?xml version='1.0' encoding='utf-8'?>\n<s:Envelope \
             xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
             xmlns:m=\"http://schemas.microsoft.com/exchange/services/2006/messages\" \
             xmlns:t=\"http://schemas.microsoft.com/exchange/services/2006/types\"><s:Body>\
             <m:SendNotificationResult><m:SubscriptionStatus>{status}</m:SubscriptionStatus>\
             </m:SendNotificationResult></s:Body></s:Envelope>"
        );
        assert_eq!(read(&body), answer, "{body}");
    }
}

#[test]
fn own_answers_are_short_and_understood() {
    for (status, answer) in [
        (SubscriptionStatus::Ok, Answer::Ok),
        (SubscriptionStatus::Unsubscribe, Answer::Unsubscribe),
    ] {
        let body = result(status);
        assert!(body.len() < 512);
        assert_eq!(read_answer(StatusCode::OK, &body), answer);
        let response = response(body);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/xml; charset=utf-8");
    }
}

#[test]
fn the_first_status_counts_in_any_namespace() {
    for (body, answer) in [
        (OK.to_owned(), Answer::Ok),
        ("<SubscriptionStatus>\n OK </SubscriptionStatus>".to_owned(), Answer::Ok),
        ("<SubscriptionStatus><![CDATA[O]]>&#75;</SubscriptionStatus>".to_owned(), Answer::Ok),
        (format!("<a>{OK}<SubscriptionStatus>Unsubscribe</SubscriptionStatus></a>"), Answer::Ok),
        (
            "<a><SubscriptionStatus>Unsubscribe</SubscriptionStatus>OK</a>".to_owned(),
            Answer::Unsubscribe,
        ),
    ] {
        assert_eq!(read(&body), answer, "{body}");
    }
}

#[test]
fn what_exchange_would_not_understand_is_wrong() {
    for (body, problem) in [
        ("", WrongAnswer::NotXml),
        ("OK", WrongAnswer::NotXml),
        ("<html><br></html>", WrongAnswer::NotXml),
        ("<!DOCTYPE html><SubscriptionStatus>OK</SubscriptionStatus>", WrongAnswer::NotXml),
        ("<a><SubscriptionStatus>OK</SubscriptionStatus>", WrongAnswer::NotXml),
        ("<a>OK</a>", WrongAnswer::NoStatus),
        ("<subscriptionStatus>OK</subscriptionStatus>", WrongAnswer::NoStatus),
        ("<SubscriptionStatus/>", WrongAnswer::Status),
        ("<SubscriptionStatus>ok</SubscriptionStatus>", WrongAnswer::Status),
        ("<SubscriptionStatus>UNSUBSCRIBE</SubscriptionStatus>", WrongAnswer::Status),
        (
            "<a><SubscriptionStatus/><SubscriptionStatus>OK</SubscriptionStatus></a>",
            WrongAnswer::Status,
        ),
    ] {
        assert_eq!(read(body), Answer::Wrong(problem), "{body}");
    }
    for status in [StatusCode::ACCEPTED, StatusCode::FOUND, StatusCode::INTERNAL_SERVER_ERROR] {
        let answer = read_answer(status, OK.as_bytes());
        assert_eq!(answer, Answer::Wrong(WrongAnswer::Http(status)));
    }
}

#[test]
fn an_answer_goes_on_as_it_is_unless_it_is_too_long() {
    let padded = |length: usize| {
        let padding = " ".repeat(length.saturating_sub(OK.len()));
        Bytes::from(format!("{OK}{padding}"))
    };
    let status = SubscriptionStatus::Ok;
    assert_eq!(pass_through(StatusCode::OK, padded(1023)), Ok((status, padded(1023))));
    assert_eq!(pass_through(StatusCode::OK, padded(1024)), Ok((status, result(status))));
    let wrong = pass_through(StatusCode::OK, Bytes::from_static(b"<a/>"));
    assert_eq!(wrong, Err(WrongAnswer::NoStatus));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_wrong(body in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = read_answer(StatusCode::OK, &body);
    }

    #[test]
    fn what_goes_on_is_always_short_and_understood(
        status in prop::sample::select(vec!["OK", "Unsubscribe", "ok", ""]),
        before in "[ -~]{0,20}",
        after in "[ -~]{0,1500}",
    ) {
        let body = format!(
            "<a><b><![CDATA[{before}]]></b><SubscriptionStatus>{status}</SubscriptionStatus>\
             <c><![CDATA[{after}]]></c></a>"
        );
        if let Ok((_, passed)) = pass_through(StatusCode::OK, body.clone().into()) {
            prop_assert!(passed.len() < 1024);
            prop_assert_eq!(read(&body), read_answer(StatusCode::OK, &passed));
        }
    }
}
