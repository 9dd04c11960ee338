//! The demonstration shows what it claims, and leaves nothing behind.

use std::{fs, process::Command, time::Duration};

use exogate_tests::process::run;

#[test]
fn every_claim_of_the_demonstration_holds() {
    let mut demonstration = Command::new(env!("CARGO_BIN_EXE_exogate-demo"));
    let output = run(demonstration.arg("--once"), Duration::from_secs(90)).unwrap();
    println!("{}", output.stdout);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert!(!output.stdout.contains("FAILED"));
    let holds = |claim: &str| {
        let shown = |line: &str| line.starts_with("  ok ") && line.contains(claim);
        assert!(output.stdout.lines().any(shown), "{claim}");
    };
    holds("native mode, enforcing");
    holds("2603:1026:206:1::5       gets through: 200");
    holds("52.159.23.209            gets through: 200");
    holds("2001:db8::7              gets no answer");
    holds("prefixes were added");

    let (_, namespace) = output.stdout.split_once("--net=").unwrap();
    let namespace = namespace.split_whitespace().next().unwrap();
    assert!(!fs::exists(namespace).unwrap(), "{namespace} is left");
}

#[test]
fn the_demonstration_takes_no_other_argument() {
    let mut demonstration = Command::new(env!("CARGO_BIN_EXE_exogate-demo"));
    let output = run(demonstration.arg("--twice"), Duration::from_secs(10)).unwrap();
    assert_eq!(output.code, 64, "{output:?}");
}
