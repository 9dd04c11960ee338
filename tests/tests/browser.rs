//! The status page in a real browser. Needs root, the agent's binary and
//! `chromium-headless-shell`.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]

use std::{fs, time::Duration};

use exogate_tests::{
    agent::Agent,
    lab::{Family, Lab, Peer},
    peer::HTTPS,
    pega::Pega,
    process::run,
};

/// The page as the browser has understood it, or `output` of another kind.
fn browse(lab: &Lab, action: &str) -> String {
    let mut browser = lab.edge().command("chromium-headless-shell");
    // Root has no sandbox, and the lab no way to the makers of the browser.
    browser.args(["--no-sandbox", "--disable-gpu"]);
    browser.arg(format!("--user-data-dir={}", lab.directory().join("browser").display()));
    browser.args(["--window-size=900,1200", action, "http://127.0.0.1:9469/"]);
    let output = run(&mut browser, Duration::from_secs(120)).unwrap();
    assert_eq!(output.code, 0, "{output:?}");
    output.stdout
}

#[test]
fn the_status_page_reads_well_without_scripts_and_tells_no_secret() {
    let lab = Lab::new().unwrap();
    let pega = Pega::start(&lab, 8080).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.add_relay(&[&pega]).unwrap().start().unwrap();
    assert!(!lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
    agent.print(&["allow", "203.0.113.99", "--for", "1h", "--reason", "ticket 4711"]).unwrap();

    let page = browse(&lab, "--dump-dom");
    let answer = agent.get("/").unwrap();
    for part in [
        "Enforcing: packets from unlisted sources are dropped.",
        "Interface edge0",
        "<td>drop</td><td>unlisted</td><td>ipv4</td>",
        "exchange-online",
        "Worldwide",
        "1 prefixes pass for a while",
        "<td>graph</td>",
        "Upstream pega: 1 of 1 servers are up.",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
        // It is all there without a browser that runs anything.
        assert!(answer.text().contains(part), "{part}\n{}", answer.text());
    }
    // Paths of routes, senders, what operators wrote; scripts, and anything from elsewhere.
    for part in ["8Jx2mVq0s7", "203.0.113", "4711", "<script", "http://", "https://"] {
        assert!(!page.contains(part), "{part}\n{page}");
    }
    // Scripts would be forbidden, too.
    let policy = &answer.headers["content-security-policy"];
    assert!(policy.to_str().unwrap().starts_with("default-src 'none'"), "{policy:?}");

    let picture = lab.directory().join("status.png");
    browse(&lab, &format!("--screenshot={}", picture.display()));
    let picture = fs::read(picture).unwrap();
    assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "{} bytes", picture.len());
    if let Ok(kept) = std::env::var("EXOGATE_SCREENSHOT") {
        fs::write(kept, picture).unwrap();
    }

    agent.set("mode", "monitor").unwrap().reload().unwrap();
    agent.print(&["feed", "hold"]).unwrap();
    let page = browse(&lab, "--dump-dom");
    assert!(page.contains("Updates are on hold."), "{page}");
}
