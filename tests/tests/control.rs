//! Who may use the control socket, and what is remembered of it. Needs root and the agent's
//! binary.

#![allow(clippy::unwrap_used, reason = "a test stops at the first thing that goes wrong")]
#![allow(clippy::indexing_slicing, reason = "what JSON does not have is null, and told")]

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use exogate_tests::{
    agent::Agent,
    lab::Lab,
    process::{Output, agent_binary, run},
};
use serde_json::json;

/// A group of every Debian system, and its number.
const GROUP: (&str, u32) = ("daemon", 1);
const NOBODY: u32 = 65534;

/// The program and a configuration, where users other than root may read them.
struct Public {
    binary: PathBuf,
    config: PathBuf,
}

impl Public {
    fn of(lab: &Lab, agent: &Agent) -> Self {
        let (binary, config) =
            (lab.directory().join("exogate"), lab.directory().join("public.toml"));
        fs::copy(agent_binary().unwrap(), &binary).unwrap();
        fs::copy(agent.config_file(), &config).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).unwrap();
        Self { binary, config }
    }

    /// Runs a command as nobody, with a group.
    fn run(&self, lab: &Lab, group: u32, arguments: &[&str]) -> Output {
        let mut command = lab.edge().command("setpriv");
        command.args([format!("--reuid={NOBODY}"), format!("--regid={group}")]);
        command.args(["--clear-groups", "--no-new-privs"]).arg(&self.binary).args(arguments);
        run(command.arg("--config").arg(&self.config), Duration::from_secs(30)).unwrap()
    }
}

#[test]
fn only_operators_are_listened_to_and_what_they_order_is_recorded() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.set("admin.group", GROUP.0).unwrap().start().unwrap();
    let public = Public::of(&lab, &agent);
    let hold = ["feed", "hold"];
    let member = public.run(&lab, GROUP.1, &hold);
    assert_eq!(member.code, 0, "{member:?}\n{}", agent.log());
    let stranger = public.run(&lab, NOBODY, &hold);
    assert!(stranger.code == 1 && stranger.stderr.contains("admin.group"), "{stranger:?}");

    // Also where somebody has loosened the mode of the socket.
    let socket = lab.directory().join("control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    for arguments in [&["feed", "resume"][..], &["status"]] {
        let stranger = public.run(&lab, NOBODY, arguments);
        assert!(stranger.code == 1 && stranger.stderr.contains("admin.group"), "{stranger:?}");
    }
    assert_eq!(agent.status_json().unwrap()["hold"], true);
    assert_eq!(agent.cli(&["allow", "remove", "203.0.113.7"]).unwrap().code, 1);

    let records = agent.json(&["audit"]).unwrap();
    let told: Vec<_> = records
        .as_array()
        .unwrap()
        .iter()
        .map(|record| (&record["caller"]["uid"], &record["order"], &record["outcome"]))
        .collect();
    let nobody = &json!(NOBODY);
    assert_eq!(
        told,
        [
            (nobody, &json!({ "order": "hold" }), &json!("done")),
            (nobody, &json!("POST /v1/order"), &json!("denied")),
            (nobody, &json!("GET /v1/status"), &json!("denied")),
            (
                &json!(0),
                &json!({ "order": "disallow", "prefix": "203.0.113.7/32" }),
                &json!("refused")
            ),
        ]
    );
    let metrics = agent.metrics().unwrap();
    let denied = metrics.sum("exogate_admin_orders_total", &[("outcome", "denied")]);
    assert_eq!(denied, Some(2.0), "{metrics}");
    assert!(agent.log().contains("an order on the control socket"));

    agent.kill9().unwrap();
    assert_eq!(agent.json(&["audit"]).unwrap(), records, "without an agent");
    assert!(agent.print(&["audit", "--last", "1"]).unwrap().contains("root refused"));
}

#[test]
fn without_a_group_the_socket_is_for_its_owner_alone() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    let public = Public::of(&lab, &agent);
    let socket = lab.directory().join("control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(public.run(&lab, GROUP.1, &["status"]).code, 1);
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(public.run(&lab, GROUP.1, &["status"]).code, 1);
}

#[test]
fn who_may_not_see_the_pins_is_not_told_that_there_are_none() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.start().unwrap();
    let public = Public::of(&lab, &agent);
    agent.terminate().unwrap();
    let told = public.run(&lab, NOBODY, &["status"]);
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.stderr.contains("ask as root"), "{told:?}");
    assert!(!told.stderr.contains("no filter is pinned"), "{told:?}");
}
