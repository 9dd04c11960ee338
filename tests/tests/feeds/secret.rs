//! A secret in the URL of a source is sent to its server and shown to nobody.

use std::{fs, net::SocketAddr, path::Path};

use exogate_tests::{agent::Agent, server::Nginx};

use super::{PARTNERS, SOON, follow, lab, poll, server, wait};

const TOKEN: &str = "hush-token";
const PASSWORD: &str = "hush-password";
/// "edge:hush-password" in base64, as the header has it.
const ENCODED: &str = "ZWRnZTpodXNoLXBhc3N3b3Jk";

/// Every file below a directory.
fn contents(directory: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &contents(&path);
        } else {
            all += &String::from_utf8_lossy(&fs::read(path).unwrap());
        }
    }
    all
}

/// Whatever the agent tells anybody.
fn outputs(agent: &Agent) -> Vec<(String, String)> {
    let mut outputs = Vec::new();
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["check", PARTNERS[0]],
        &["check", PARTNERS[0], "--json"],
        &["check", "203.0.113.7"],
        &["diff"],
        &["diff", "--json"],
        &["history"],
        &["history", "--json"],
        &["export", "--format", "plain"],
        &["export", "--format", "nft"],
        &["export", "--format", "ipset"],
        &["export", "--format", "json"],
        &["feed", "refresh"],
        &["feed", "refresh", "--json"],
        &["feed", "accept", "partners"],
        &["config", "check"],
        &["config", "check", "--json"],
    ] {
        let output = agent.cli(command).unwrap();
        outputs.push((command.join(" "), format!("{}{}", output.stdout, output.stderr)));
    }
    for path in ["/metrics", "/healthz", "/readyz", "/export?format=json"] {
        outputs.push((path.to_owned(), agent.get(path).unwrap().text()));
    }
    outputs.push(("the log".to_owned(), agent.log()));
    outputs.push(("the state directory".to_owned(), contents(&agent.state_directory())));
    outputs
}

fn shows_nothing(agent: &Agent, when: &str) {
    for (what, text) in outputs(agent) {
        for secret in ["hush", ENCODED] {
            assert!(!text.contains(secret), "{when}: {what} shows {secret}:\n{text}");
        }
    }
}

#[test]
fn a_secret_in_a_url_is_sent_and_shown_nowhere() {
    let lab = lab();
    let address = SocketAddr::new(server("192.0.2.30", &lab), 443);
    let passwords = lab.directory().join("passwords");
    fs::write(&passwords, format!("edge:{{PLAIN}}{PASSWORD}\n")).unwrap();
    let passwords = passwords.display();
    let locations = format!(
        "location / {{ auth_basic lists; auth_basic_user_file {passwords}; \
         if ($arg_token != {TOKEN}) {{ return 403; }} }}
         location /moved.txt {{ return 302 https://{address}/a.txt?token={TOKEN}; }}"
    );
    let nginx = Nginx::start(&lab, lab.wan(), &[address], &locations).unwrap();
    let [a, ..] = PARTNERS;
    nginx.put("a.txt", &format!("{a}\n")).unwrap();
    let ca = lab.ca_file();
    let source = |path: &str| {
        format!(
            "kind = \"url\"\nurl = \"https://edge:{PASSWORD}@{address}/{path}?token={TOKEN}\"\n\
             ca_file = {ca:?}"
        )
    };
    let mut agent = follow(&lab, &source("a.txt"));
    agent.set("admin.export", true).unwrap().set("log.level", "trace").unwrap();
    agent.start().unwrap();
    wait(&lab, a, true, SOON);
    shows_nothing(&agent, "followed");
    let check = agent.print(&["check", a]).unwrap();
    assert!(check.contains(&format!("https://{address}/a.txt?…")), "{check}");

    // Refused, and all that can fail.
    nginx.put("a.txt", "<html>").unwrap();
    poll(&agent);
    shows_nothing(&agent, "refused");
    for path in ["missing.txt", "moved.txt"] {
        let url = format!("https://edge:{PASSWORD}@{address}/{path}?token={TOKEN}");
        agent.set("source.partners.url", url).unwrap();
        agent.reload().unwrap();
        poll(&agent);
        shows_nothing(&agent, path);
        assert!(agent.log().contains(path), "{}", agent.log());
    }
    drop(nginx);
    poll(&agent);
    shows_nothing(&agent, "unreachable");

    // Not even a configuration that is refused.
    for url in [
        format!("http://edge:{PASSWORD}@{address}/?token={TOKEN}"),
        format!("ftp:{PASSWORD}@{address}?{TOKEN}"),
    ] {
        agent.set("source.partners.url", url).unwrap();
        agent.reload().unwrap();
        let check = agent.cli(&["config", "check"]).unwrap();
        assert_eq!(check.code, 64, "{check:?}");
        assert!(check.stderr.contains("https://host"), "{check:?}");
        assert!(!check.stderr.contains("hush"), "{check:?}");
        assert!(!agent.log().contains("hush"), "{}", agent.log());
    }
}
