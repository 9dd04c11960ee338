//! What the operator is told who asks for the impossible: one line that says what,
//! where and what to do, an exit status that says whose fault it is, and nothing is
//! left behind.

use std::{fs, process::Command, time::Duration};

use exogate_tests::{
    agent::Agent,
    lab::{EDGE_INTERFACE, Family, Lab, Peer},
    peer::HTTPS,
    process::{Output, agent_binary, check, run},
};

use super::{PATIENCE, Scene, pins};

/// Exit status of wrong usage or configuration.
const USAGE: i32 = 64;
/// Exit status of everything else.
const FAILURE: i32 = 1;

/// Runs the agent, which ends by itself.
fn run_agent(lab: &Lab, arguments: &[&str]) -> Output {
    let mut command = lab.edge().command(agent_binary().unwrap());
    // The configuration of this machine is none of the test's.
    run(command.args(arguments), PATIENCE).unwrap()
}

/// Expects a refusal in one line, and an edge host that is as it was.
fn refused(lab: &Lab, what: &str, output: &Output, code: i32, says: &[&str]) {
    assert_eq!(output.code, code, "{what}: {output:?}");
    let errors: Vec<_> = output.stderr.lines().filter(|l| l.starts_with("exogate: ")).collect();
    assert_eq!(errors.len(), 1, "{what}: {}", output.stderr);
    for part in says {
        assert!(output.stderr.contains(part), "{what}: {part:?} is not in {}", output.stderr);
    }
    assert!(!output.stderr.contains("panicked"), "{what}: {}", output.stderr);
    assert_eq!(program(lab), None, "{what}");
    assert!(pins(lab).is_empty(), "{what}: {:?}", pins(lab));
}

/// The number of the XDP program on the edge host's interface.
fn program(lab: &Lab) -> Option<u32> {
    let mut ip = Command::new("ip");
    let shown = check(
        ip.args(["-netns", lab.edge().name(), "-details", "link", "show", EDGE_INTERFACE]),
        "",
    );
    let shown = shown.unwrap();
    let (_, rest) = shown.split_once("prog/xdp id ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Expects the filter in force on the edge host, although no agent runs.
fn is_filtered(lab: &Lab) {
    assert!(program(lab).is_some());
    assert!(!lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
    assert!(lab.connect(Peer::Exchange, Family::V4, HTTPS).unwrap().passed());
}

/// The last line of an agent that did not start.
fn spawn_in_vain(agent: &mut Agent, code: i32, says: &[&str]) {
    agent.spawn().unwrap();
    let status = agent.wait_exit(PATIENCE).unwrap();
    let log = agent.log();
    assert_eq!(status.code(), Some(code), "{log}");
    let error = log.lines().rfind(|line| line.starts_with("exogate: ")).unwrap_or_default();
    for part in says {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn a_wrong_command_line_is_wrong_usage() {
    let lab = Lab::new().unwrap();
    for (arguments, says) in [
        (&["run", "--interface", EDGE_INTERFACE, "--mode", "drop"][..], "monitor or enforce"),
        (&["check", "40.96.1"], "invalid"),
        (&["run", "--interfaces", EDGE_INTERFACE], "--interface"),
        (&["start"], "start"),
        (&[], "Usage"),
    ] {
        let output = run_agent(&lab, arguments);
        assert_eq!(output.code, USAGE, "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(says), "{arguments:?}: {output:?}");
        assert_eq!(program(&lab), None, "{arguments:?}");
    }
}

#[test]
fn a_wrong_configuration_is_refused_with_its_line() {
    let lab = Lab::new().unwrap();
    let file = lab.directory().join("wrong.toml");
    let path = file.to_str().unwrap();
    let cases: [(&str, &[&str]); 9] = [
        ("mode = \"enforce\"\nprots = [443]\n", &["wrong.toml:2:", "prots"]),
        ("[gate]\non_stopp = \"keep\"\n", &["wrong.toml:2:", "on_stopp"]),
        ("mode = \"sometimes\"\n", &["wrong.toml:1:", "sometimes", "monitor"]),
        ("[[guard]]\nport = 65536\nsources = []\n", &["wrong.toml:2:", "65535"]),
        ("[[guard]]\nport = 0\nsources = []\n", &["wrong.toml:2:", "port"]),
        ("[feed]\ntimeout = \"0s\"\n", &["wrong.toml:", "timeout"]),
        ("[feed]\nbase_url = \"http://192.0.2.10\"\n", &["wrong.toml:2:", "https"]),
        ("[[guard]]\nport = 443\nsources = [\"exchange\"]\n", &["wrong.toml:3:", "exchange"]),
        ("mode = \n", &["wrong.toml:1:"]),
    ];
    for (text, says) in cases {
        fs::write(&file, text).unwrap();
        for arguments in [
            &["run", "--interface", EDGE_INTERFACE, "--config", path][..],
            &["config", "check", "--config", path],
        ] {
            let what = format!("{text:?} {arguments:?}");
            refused(&lab, &what, &run_agent(&lab, arguments), USAGE, says);
        }
    }
    let missing = lab.directory().join("missing.toml");
    let arguments = ["run", "--interface", EDGE_INTERFACE, "--config", missing.to_str().unwrap()];
    let says = ["missing.toml", "No such file"];
    refused(&lab, "no file", &run_agent(&lab, &arguments), USAGE, &says);
}

#[test]
fn pins_need_a_bpf_file_system() {
    let lab = Lab::new().unwrap();
    let plain = lab.directory().join("pins");
    // The second is what /sys/fs/bpf is before it is mounted.
    for directory in [plain.to_str().unwrap(), "/sys/kernel/exogate"] {
        let mut agent = Agent::new(&lab).unwrap();
        agent.set("gate.pin_directory", directory).unwrap();
        let wrong = format!("{directory} is not on a BPF file system");
        spawn_in_vain(&mut agent, FAILURE, &[&wrong, "mount -t bpf bpf /sys/fs/bpf"]);
        assert_eq!(program(&lab), None);
        assert!(!fs::exists(directory).unwrap());
    }
}

#[test]
fn an_admin_port_in_use_keeps_the_agent_away_and_not_the_filter() {
    let lab = Lab::new().unwrap();
    let taken = lab.edge().run(|| Ok(std::net::TcpListener::bind("127.0.0.1:9469")?)).unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    let says = ["127.0.0.1:9469", "in use", "admin.listen"];
    spawn_in_vain(&mut agent, FAILURE, &says);
    is_filtered(&lab);
    drop(taken);
    // Another test's thread may just be starting a child, which holds the port until its exec.
    std::thread::sleep(Duration::from_millis(500));
    agent.start().unwrap();
    assert_eq!(agent.status_json().unwrap()["interfaces"][0]["adopted"], true);
}

#[test]
fn a_group_that_nobody_knows_keeps_the_agent_away_and_not_the_filter() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    agent.set("admin.group", "no-such-group").unwrap();
    spawn_in_vain(&mut agent, FAILURE, &["no group \"no-such-group\"", "admin.group"]);
    is_filtered(&lab);
}

#[test]
fn nothing_starts_without_a_state_that_cannot_be_read() {
    let lab = Lab::new().unwrap();
    let mut agent = Agent::new(&lab).unwrap();
    let state = agent.state_directory().join("state.json");
    fs::create_dir_all(&state).unwrap();
    spawn_in_vain(&mut agent, FAILURE, &["state.json", "orders of operators", "move it away"]);
    assert!(state.is_dir());
    assert_eq!(program(&lab), None);
}

#[test]
fn a_second_agent_on_an_interface_is_turned_away() {
    let scene = Scene::started();
    let (before, held) = (program(&scene.lab), pins(&scene.lab));
    let mut second = Agent::second(&scene.lab).unwrap();
    spawn_in_vain(&mut second, FAILURE, &["another exogate process holds", "stop it first"]);
    assert_eq!((program(&scene.lab), pins(&scene.lab)), (before, held));
    assert!(!scene.lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
    assert!(scene.lab.connect(Peer::Exchange, Family::V4, HTTPS).unwrap().passed());
}

#[test]
fn somebody_elses_program_is_named_and_left_alone() {
    // An agent with other pins is somebody else.
    let mut scene = Scene::started();
    scene.agent.terminate().unwrap();
    let (before, held) = (program(&scene.lab).unwrap(), pins(&scene.lab));
    let mut other = Agent::second(&scene.lab).unwrap();
    let directory = scene.lab.pin_directory().join("other");
    other.set("gate.pin_directory", directory.to_str().unwrap()).unwrap();
    let already = format!("already runs XDP program {before} (exogate");
    let says = [already.as_str(), "left alone", "xdp off"];
    spawn_in_vain(&mut other, FAILURE, &says);
    assert_eq!(program(&scene.lab), Some(before));
    assert!(!scene.lab.connect(Peer::Stranger, Family::V4, HTTPS).unwrap().passed());
    let after: Vec<_> =
        pins(&scene.lab).into_iter().filter(|pin| !pin.contains("/other")).collect();
    assert_eq!(after, held);
    let left: Vec<_> =
        pins(&scene.lab).into_iter().filter(|pin| pin.ends_with("/program")).collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_missing_capability_is_named() {
    let lab = Lab::new().unwrap();
    let agent = Agent::new(&lab).unwrap();
    agent.cli(&["config", "check"]).unwrap();
    for bounding_set in ["-all", "-bpf,-sys_admin", "-net_admin,-sys_admin"] {
        let mut command = lab.edge().command("setpriv");
        command.arg(format!("--bounding-set={bounding_set}"));
        command.arg(format!("--inh-caps={bounding_set}"));
        command.arg(agent_binary().unwrap()).arg("run").arg("--config").arg(agent.config_file());
        let output = run(&mut command, Duration::from_secs(20)).unwrap();
        let says = ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "run it as root"];
        refused(&lab, bounding_set, &output, FAILURE, &says);
    }
}
