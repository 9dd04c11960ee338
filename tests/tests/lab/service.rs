//! The stand-in speaks the service's protocol, and fails in each way it is told to.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use exogate_tests::{
    http::{Get, Response},
    lab::{Lab, SERVICE},
    process::run,
    proxy::Proxy,
    service::{
        Certificate, EndpointService, Fault, Instance, Moment, On, Publication, SERVICE_NAME,
        captures,
    },
    tls::Authority,
};
use serde_json::{Value, json};

const ID: &str = "ClientRequestId=7d1a0e5c-5a52-4d53-9c0e-0f4f6a1f6f11";

fn lab() -> (Lab, EndpointService) {
    let lab = Lab::new().unwrap();
    let service = EndpointService::start(&lab).unwrap();
    (lab, service)
}

/// Asks as the agent does: from the edge host, with the lab's authority trusted.
fn ask(lab: &Lab, path: &str) -> Result<Response> {
    ask_trusting(lab, lab.authority(), path)
}

fn ask_trusting(lab: &Lab, authority: &Authority, path: &str) -> Result<Response> {
    let get = Get {
        source: None,
        target: SocketAddr::new(SERVICE, 443),
        tls: Some((authority.client()?, SERVICE_NAME.try_into()?)),
        path: path.to_owned(),
        patience: Duration::from_secs(2),
    };
    let reached = lab.edge().run_async(Duration::from_secs(3), || get.send())?;
    Ok(reached.answer().expect("the service listens"))
}

fn version(lab: &Lab) -> Value {
    let answer = ask(lab, &format!("/version/worldwide?{ID}")).unwrap();
    serde_json::from_slice::<Value>(&answer.body).unwrap()["latest"].clone()
}

fn sets(lab: &Lab) -> Result<Response> {
    ask(lab, &format!("/endpoints/Worldwide?{ID}"))
}

#[test]
fn captures_are_served_as_they_are() {
    let (lab, service) = lab();
    let capture =
        fs::read(captures().join("worldwide/worldwide-captured-2026-05-29.json")).unwrap();
    let answer = sets(&lab).unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &capture[..]));
    assert_eq!(version(&lab), "2026052900");

    service.publish(Publication::worldwide("2020010200").unwrap());
    assert_eq!(version(&lab), "2020010200");
    let capture = fs::read(captures().join("history/worldwide-2020010200.json")).unwrap();
    assert_eq!(sets(&lab).unwrap().body, capture);
}

#[test]
fn the_documented_protocol_is_spoken() {
    let (lab, service) = lab();
    let status = |path: &str| ask(&lab, path).unwrap().status;
    for refused in ["/version", "/endpoints/Worldwide?ClientRequestId=me", "/version?Format=JSON"] {
        assert_eq!(status(refused), 400, "{refused}");
    }
    for missing in ["changes/Worldwide/0000000000", "endpoints", "endpoints/Germany", "version/a"] {
        assert_eq!(status(&format!("/{missing}?{ID}")), 404, "{missing}");
    }
    for served in ["version", "version/usgovdod", "endpoints/CHINA", "endpoints/USGovGCCHigh"] {
        assert_eq!(status(&format!("/{served}?format=json&{ID}")), 200, "{served}");
    }
    assert_eq!((service.count(On::Version), service.count(On::Endpoints)), (5, 5));
    assert_eq!(service.asked()[0].status, Some(400));
    assert_eq!(service.asked().last().unwrap().path, "/endpoints/USGovGCCHigh");

    let json = |path: &str| -> Value {
        serde_json::from_slice(&ask(&lab, &format!("{path}{ID}")).unwrap().body).unwrap()
    };
    let all = json("/version?");
    assert_eq!(all[0], json!({ "instance": "Worldwide", "latest": "2026052900" }));
    assert_eq!(all.as_array().unwrap().len(), 4);
    service.publish(Publication::new(Instance::Worldwide, "2026112300", "[]"));
    let versions = &json("/version/Worldwide?AllVersions=true&")["versions"];
    assert_eq!(*versions, json!(["2026112300", "2026052900"]));
    let exchange = json("/endpoints/China?ServiceAreas=Exchange&NoIPv6=true&");
    let areas = exchange.as_array().unwrap().iter().map(|set| set["serviceArea"].as_str().unwrap());
    assert!(
        areas.clone().any(|area| area == "Common") && !areas.clone().any(|area| area == "Skype")
    );
    assert!(!exchange.to_string().contains("::"));
}

#[test]
fn only_the_labs_authority_is_trusted_with_it() {
    let (lab, service) = lab();
    let path = format!("/version?{ID}");
    let stranger = Authority::new().unwrap();
    let error = format!("{:?}", ask_trusting(&lab, &stranger, &path).unwrap_err());
    assert!(error.contains("BadSignature"), "{error}");
    for (certificate, reason) in [
        (Certificate::Expired, "certificate expired"),
        (Certificate::WrongName, "not valid for name"),
    ] {
        service.present(certificate);
        let error = format!("{:?}", ask(&lab, &path).unwrap_err());
        assert!(error.contains(reason), "{error}");
    }
    service.heal();
    assert_eq!(ask(&lab, &path).unwrap().status, 200);
}

#[test]
fn each_answer_that_is_no_use_can_be_had() {
    let (lab, service) = lab();
    let redirect = Fault::Redirect { location: "https://example.com/".to_owned() };
    let cases: [(Fault, u16, &[u8]); 6] = [
        (Fault::TooManyRequests, 429, b"Too many"),
        (Fault::ServerError, 500, b"<!DOCTYPE"),
        (Fault::Html, 200, b"<!DOCTYPE"),
        (Fault::Empty, 200, b""),
        (Fault::EmptyArray, 200, b"[]"),
        (redirect, 302, b""),
    ];
    for (fault, status, start) in cases {
        service.fail(On::Endpoints, fault.clone());
        let answer = sets(&lab).unwrap();
        assert_eq!(answer.status, status, "{fault:?}");
        assert!(answer.body.starts_with(start), "{fault:?}");
        assert_eq!(answer.body.is_empty(), start.is_empty(), "{fault:?}");
        assert_eq!(version(&lab), "2026052900", "{fault:?} concerns the sets only");
    }
    service.fail(On::Any, Fault::Huge { bytes: 6 << 20 });
    let answer = ask(&lab, &format!("/version?{ID}")).unwrap();
    assert_eq!(answer.body.len(), (6 << 20) + 1);
    service.heal();
    assert!(sets(&lab).unwrap().body.len() > 20_000);
}

#[test]
fn each_failing_connection_can_be_had() {
    let (lab, service) = lab();
    service.fail(On::Endpoints, Fault::Reset);
    let error = format!("{:?}", sets(&lab).unwrap_err());
    assert!(error.contains("Connection reset"), "{error}");

    service.fail(On::Endpoints, Fault::Truncated);
    let error = format!("{:?}", sets(&lab).unwrap_err());
    assert!(error.contains("peer closed connection"), "{error}");

    service.fail(On::Endpoints, Fault::Hang);
    let error = format!("{:#}", sets(&lab).unwrap_err());
    assert!(error.contains("not done in 3s"), "{error}");
    assert_eq!(service.asked().last().unwrap().status, None);

    let pause = Duration::from_millis(100);
    service.fail(On::Endpoints, Fault::Slow { piece: 4_000, pause });
    let begin = Instant::now();
    assert!(sets(&lab).unwrap().body.len() > 20_000);
    assert!(begin.elapsed() > 5 * pause);
}

#[test]
fn the_version_can_move_while_the_sets_are_read() {
    let (lab, service) = lab();
    let next = |version: &str| Publication::new(Instance::Worldwide, version, version.to_owned());
    service.publish_during(Moment::BeforeSets, next("1"));
    assert_eq!(version(&lab), "2026052900");
    assert_eq!(sets(&lab).unwrap().text(), "1");
    assert_eq!(version(&lab), "1");

    service.publish_during(Moment::AfterSets, next("2"));
    assert_eq!(version(&lab), "1");
    assert_eq!(sets(&lab).unwrap().text(), "1");
    assert_eq!(version(&lab), "2");
    assert_eq!(sets(&lab).unwrap().text(), "2");
}

#[test]
fn a_capture_can_be_edited() {
    let original = Publication::latest(Instance::Worldwide).unwrap();
    let edited = original.edited("2026112301", |sets| sets.truncate(1)).unwrap();
    let sets: Value = serde_json::from_slice(edited.sets()).unwrap();
    assert_eq!((sets.as_array().unwrap().len(), sets[0]["id"].as_u64()), (1, Some(1)));
    assert_eq!(edited.version(), "2026112301");
}

#[test]
fn the_service_can_be_reached_by_name_through_a_proxy() {
    let (lab, service) = lab();
    let proxy = Proxy::start(&lab).unwrap();
    let curl = || {
        let mut curl = lab.edge().command("curl");
        curl.args(["--silent", "--show-error", "--proxy", &Proxy::url()]);
        curl.arg("--cacert").arg(lab.ca_file());
        curl.arg(format!("https://{SERVICE_NAME}/version/Worldwide?{ID}"));
        run(&mut curl, Duration::from_secs(10)).unwrap()
    };
    let output = curl();
    assert!(output.stdout.contains("2026052900"), "{output:?}");
    assert_eq!(proxy.tunnels(), [format!("{SERVICE_NAME}:443")]);
    assert_eq!(service.count(On::Version), 1);

    proxy.refuse(true);
    let output = curl();
    assert!(output.code != 0 && output.stderr.contains("407"), "{output:?}");
    assert_eq!(proxy.tunnels().len(), 1);
}
