use proptest::prelude::*;

use super::*;

pub(in crate::relay::ews) const EVENT: &str =
    "<t:ModifiedEvent><t:Watermark>x</t:Watermark><t:ItemId Id=\"a&amp;b\"/></t:ModifiedEvent>";
pub(in crate::relay::ews) const STATUS: &str =
    "<t:StatusEvent><t:Watermark>x</t:Watermark></t:StatusEvent>";

/// A message with this inside of `ResponseMessages`.
fn envelope(inner: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><s:Envelope xmlns:s=\"{SOAP}\" xmlns:m=\"\
         {MESSAGES}\" xmlns:t=\"{TYPES}\"><s:Header><t:RequestServerVersion/></s:Header><s:Body>\
         <m:SendNotification><m:ResponseMessages>{inner}</m:ResponseMessages>\
         </m:SendNotification></s:Body></s:Envelope>"
    )
}

/// A message with these notifications.
pub(in crate::relay::ews) fn message(notifications: &str) -> String {
    envelope(&format!(
        "<m:SendNotificationResponseMessage ResponseClass=\"Success\"><m:ResponseCode>NoError\
         </m:ResponseCode>{notifications}</m:SendNotificationResponseMessage>"
    ))
}

pub(in crate::relay::ews) fn notification(id: &str, watermark: &str, events: &str) -> String {
    format!(
        "<m:Notification><t:SubscriptionId>{id}</t:SubscriptionId><t:PreviousWatermark>{watermark}\
         </t:PreviousWatermark><t:MoreEvents>false</t:MoreEvents>{events}</m:Notification>"
    )
}

fn refusal(body: &str) -> Malformed {
    match parse(body.as_bytes()) {
        Ok(notifications) => panic!("{body} was read as {notifications:?}"),
        Err(reason) => reason,
    }
}

#[test]
fn a_notification_is_read() {
    let expected = Notification {
        subscription: "c3Vi+/=".to_owned(),
        previous_watermark: Some("dw==".to_owned()),
        more_events: false,
        only_status: false,
    };
    let body = message(&notification("c3Vi+/=", "dw==", EVENT));
    assert_eq!(parse(body.as_bytes()), Ok(vec![expected.clone()]));
    // In other words.
    let body = format!(
        "\u{feff}<Envelope xmlns='{SOAP}'>\n<Body><x:SendNotification xmlns:x='{MESSAGES}'>\
         <x:ResponseMessages><x:SendNotificationResponseMessage><x:Notification xmlns='{TYPES}'>\
         <MoreEvents> 0 </MoreEvents><!-- --><SubscriptionId> <![CDATA[c3V]]>i&#43;/= \
         </SubscriptionId><NewMailEvent/><PreviousWatermark>dw==</PreviousWatermark>\
         </x:Notification></x:SendNotificationResponseMessage></x:ResponseMessages>\
         </x:SendNotification></Body></Envelope>\n<!-- -->\n"
    );
    assert_eq!(parse(body.as_bytes()), Ok(vec![expected]));
}

#[test]
fn several_notifications_are_read() {
    let body = [notification("a", "1", EVENT), notification("b", "2", STATUS)].concat();
    let read = parse(message(&body).as_bytes()).unwrap();
    let read: Vec<_> = read.iter().map(|n| (n.subscription.as_str(), n.only_status)).collect();
    assert_eq!(read, [("a", false), ("b", true)]);
    let half = "<m:SendNotificationResponseMessage><m:Notification><t:SubscriptionId>c\
                </t:SubscriptionId><t:MoreEvents>true</t:MoreEvents></m:Notification>\
                </m:SendNotificationResponseMessage>";
    let read = parse(envelope(&[half, half].concat()).as_bytes()).unwrap();
    assert_eq!(read.len(), 2);
    assert!(read[0].more_events && read[0].previous_watermark.is_none());
}

#[test]
fn what_is_not_xml_is_refused() {
    let good = message(&notification("a", "1", EVENT));
    let open = good.strip_suffix("</s:Envelope>").unwrap();
    for body in [
        "",
        " ",
        "x",
        "{}",
        "<a",
        "</a>",
        open,
        &good.replace("</m:Notification>", "</t:Notification>"),
        &format!("{good}x"),
        &format!("{good}{good}"),
        &format!("{good}&lt;"),
        &good.replace("xmlns:t=", "xmlns:u="),
    ] {
        assert_eq!(refusal(body), Malformed::NotXml, "{body}");
    }
    assert_eq!(parse(b"<a>\xff</a>"), Err(Malformed::NotXml));
    let wide: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(parse(&wide).unwrap_err(), Malformed::NotXml);
}

#[test]
fn a_document_type_or_an_entity_is_refused() {
    let good = message(&notification("a", "1", EVENT));
    let declaration = "<?xml version=\"1.0\" encoding=\"utf-8\"?>";
    for declared in [
        "<!DOCTYPE x>",
        "<!DOCTYPE x [<!ENTITY a \"b\">]>",
        "<!DOCTYPE x SYSTEM \"file:///etc/passwd\">",
    ] {
        let body = good.replace(declaration, declared);
        assert_eq!(refusal(&body), Malformed::Entity, "{declared}");
    }
    assert_eq!(refusal(&message(&notification("&a;", "1", EVENT))), Malformed::Entity);
    assert_eq!(refusal(&message(&notification("a", "1", "&a;"))), Malformed::Entity);
}

#[test]
fn what_is_deeper_or_longer_than_exchanges_is_refused() {
    let deep = ["<t:X>".repeat(40), "</t:X>".repeat(40)].concat();
    let long = "a".repeat(1025);
    for body in [
        message(&notification("a", "1", &deep)),
        message(&notification("a", "1", &"<t:X/>".repeat(100_001))),
        message(&notification(&long, "1", EVENT)),
        message(&notification("a", &long, EVENT)),
        message(&notification("a", "1", EVENT).repeat(1001)),
    ] {
        assert_eq!(refusal(&body), Malformed::TooLarge, "{body:.400}");
    }
}

#[test]
fn another_message_is_refused() {
    let good = notification("a", "1", EVENT);
    let whole = message(&good);
    let id = "<t:SubscriptionId>a</t:SubscriptionId>";
    for body in [
        "<a/>",
        &message(""),
        &message(&good.replace(id, "")),
        &message(&good.replace(id, &[id, id].concat())),
        &message(&good.replace(id, "<t:SubscriptionId/>")),
        &message(&good.replace(id, "<t:SubscriptionId>a b</t:SubscriptionId>")),
        &message(&good.replace(id, "<t:SubscriptionId>\u{e9}</t:SubscriptionId>")),
        &message(&good.replace(id, "<t:SubscriptionId>a<t:X/></t:SubscriptionId>")),
        &message(&good.replace(id, "<m:SubscriptionId>a</m:SubscriptionId>")),
        &message(&good.replace(">false<", ">perhaps<")),
        &message(&good.replace("m:Notification", "t:Notification")),
        &whole.replace("s:Body", "s:Bodies"),
        &whole.replace(SOAP, "http://www.w3.org/2003/05/soap-envelope"),
        &whole.replace(MESSAGES, "urn:x"),
        &whole.replace("SendNotification>", "GetEvents>"),
        // Somebody might find this one first.
        &whole.replace("<t:RequestServerVersion/>", id),
        &message(&[id, &good].concat()),
        &message(&notification("a", "1", &format!("<t:X>{id}</t:X>"))),
        &message(&notification("a", "1", "<SubscriptionId>b</SubscriptionId>")),
    ] {
        assert_eq!(refusal(body), Malformed::Shape, "{body}");
    }
}

/// A message with pieces of it left out, doubled, or replaced.
fn broken() -> impl Strategy<Value = String> {
    let whole = message(&[notification("a", "1", EVENT), notification("b", "2", STATUS)].concat());
    let pieces: Vec<String> = whole.split_inclusive('>').map(str::to_owned).collect();
    let changes = (any::<prop::sample::Index>(), 0..4, any::<prop::sample::Index>());
    prop::collection::vec(changes, 0..6).prop_map(move |changes| {
        let mut pieces = pieces.clone();
        for (place, kind, other) in changes {
            let (place, other) = (place.index(pieces.len()), other.index(pieces.len()));
            match kind {
                0 => pieces[place] = String::new(),
                1 => pieces[place] = pieces[other].clone(),
                2 => pieces.swap(place, other),
                _ => pieces[place] = pieces[place].repeat(2),
            }
        }
        pieces.concat()
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = parse(&body);
    }

    #[test]
    fn what_is_read_of_a_broken_message_is_one_of_its_ids(body in broken()) {
        for notification in parse(body.as_bytes()).into_iter().flatten() {
            prop_assert!(["a", "b"].contains(&notification.subscription.as_str()), "{body}");
        }
    }

    #[test]
    fn what_was_written_is_read(ids in prop::collection::vec("[A-Za-z0-9+/=]{1,200}", 1..10)) {
        let all: String = ids.iter().map(|id| notification(id, id, EVENT)).collect();
        let read = parse(message(&all).as_bytes()).unwrap();
        prop_assert!(read.iter().map(|notification| &notification.subscription).eq(&ids));
        prop_assert!(read.iter().filter_map(|n| n.previous_watermark.as_ref()).eq(&ids));
    }
}
