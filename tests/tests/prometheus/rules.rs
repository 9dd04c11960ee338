//! Rules, page and metrics belong together, as far as files can tell.

use std::{collections::BTreeSet, fs};

use exogate_tests::server::{promtool, rules_directory};

fn file(name: &str) -> String {
    let path = rules_directory().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn path(name: &str) -> String {
    rules_directory().join(name).to_str().unwrap().to_owned()
}

/// What follows a mark in each line that has it, up to the end of the word.
fn words<'a>(text: &'a str, mark: &str) -> BTreeSet<&'a str> {
    let rest = text.lines().filter_map(|line| Some(line.split_once(mark)?.1));
    rest.filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next()).collect()
}

#[test]
fn prometheus_takes_the_rules_and_finds_nothing_odd() {
    let said = promtool(
        &[
            "check",
            "rules",
            "--lint=all",
            "--lint-fatal",
            &path("recording.yml"),
            &path("alerts.yml"),
        ],
        "",
    );
    said.unwrap();
}

#[test]
fn each_alert_fires_for_its_cause_and_for_no_other() {
    test_rules("alerts.test.yml");
    test_rules("alerts.week.test.yml");
}

#[test]
fn each_record_is_what_its_name_says() {
    test_rules("recording.test.yml");
    let (rules, tests) = (file("recording.yml"), file("recording.test.yml"));
    for record in rules.lines().filter_map(|line| Some(line.split_once("- record: ")?.1)) {
        assert!(tests.contains(&format!("- expr: {record}\n")), "{record} has no test");
    }
}

/// What promtool makes of a file of tests.
fn test_rules(name: &str) {
    let mut command = std::process::Command::new("promtool");
    let output = exogate_tests::process::run(
        command.args(["test", "rules", &path(name)]),
        std::time::Duration::from_secs(120),
    );
    let output = output.unwrap();
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
}

/// What provokes alerts of a live agent.
const LIVE: [&str; 3] =
    [include_str!("gate.rs"), include_str!("feeds.rs"), include_str!("relay.rs")];
/// What cannot be provoked; the page says why.
const NEVER_LIVE: [&str; 2] = ["ExogateGraphDrops", "ExogateHandlerPanics"];

#[test]
fn every_alert_is_provoked_unless_the_page_says_why_not() {
    let (rules, page) = (file("alerts.yml"), file("METRICS.md"));
    let provoked = LIVE.iter().flat_map(|test| words(test, ".fires(\"")).collect::<BTreeSet<_>>();
    assert!(provoked.is_disjoint(&NEVER_LIVE.into()), "{provoked:?}");
    assert_eq!(&provoked | &NEVER_LIVE.into(), words(&rules, "- alert: "));
    let (_, reasons) = page.split_once("except two that only").unwrap();
    let (reasons, _) = reasons.split_once("\n\n").unwrap();
    for alert in NEVER_LIVE {
        assert!(reasons.contains(&format!("`{alert}`: ")), "{alert}");
    }
}

#[test]
fn every_alert_is_on_the_page_and_has_a_test() {
    let (rules, page) = (file("alerts.yml"), file("METRICS.md"));
    let tests = file("alerts.test.yml") + &file("alerts.week.test.yml");
    let alerts = words(&rules, "- alert: ");
    assert!(alerts.len() > 20, "{alerts:?}");
    assert_eq!(
        alerts,
        words(&page, "| `Exogate")
            .iter()
            .map(|rest| format!("Exogate{rest}"))
            .collect::<Vec<_>>()
            .iter()
            .map(String::as_str)
            .collect()
    );
    assert_eq!(alerts, words(&tests, "alertname=\""));
    for line in page.lines().filter(|line| line.starts_with("| `Exogate")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let rule =
            rules.split("- alert: ").find(|rule| rule.starts_with(cells[1].trim_matches('`')));
        assert!(rule.unwrap().contains(&format!("severity: {}", cells[2])), "{line}");
    }
}

#[test]
fn every_metric_in_a_rule_is_on_the_page() {
    let page = file("METRICS.md");
    for name in ["recording.yml", "alerts.yml"] {
        let text = file(name);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let names = text.split(|c: char| !is_name(c)).filter(|word| word.starts_with("exogate_"));
        for metric in names {
            assert!(page.contains(&format!("| `{metric}` |")), "{metric} in {name}");
        }
    }
}
