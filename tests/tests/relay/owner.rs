//! Two users: an operator who starts the agent as root once, and the service that goes on.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use exogate_tests::{
    agent::relay::GRAPH, lab::Peer, notification::Notification, pega::Mood, process::agent_binary,
};

use super::{SOON, Setting};

/// The user `nobody`.
const NOBODY: u32 = 65534;

#[test]
fn the_service_goes_on_with_what_an_agent_of_root_left() {
    let mut setting = Setting::new();
    let state = setting.agent.state_directory();
    fs::create_dir(&state).unwrap();
    chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
    setting.agent.start().unwrap();
    setting.pega.feel(Mood::Answers(503, None));
    let sent = Notification::graph(GRAPH, &["one"], 1, "stored");
    assert_eq!(sent.answer(&setting.lab, Peer::Graph).unwrap().status, 202);
    setting.agent.print(&["feed", "hold"]).unwrap();
    setting.agent.terminate().unwrap();
    for path in below(&state) {
        assert_eq!(fs::metadata(&path).unwrap().uid(), NOBODY, "{}", path.display());
    }

    become_nobody(&mut setting, &state);
    setting.agent.start().unwrap();
    setting.pega.feel(Mood::Well);
    setting.pega.wait_for(1, SOON).unwrap();
    setting.agent.print(&["feed", "resume"]).unwrap();
    assert_eq!(setting.agent.json(&["audit"]).unwrap().as_array().unwrap().len(), 2);
    setting.agent.terminate().unwrap();

    // As an agent of root left it that gave nothing away.
    let spool = state.join("spool");
    for path in [&spool, &state.join("audit.jsonl")] {
        chown(path, Some(0), Some(0)).unwrap();
    }
    setting.agent.spawn().unwrap();
    wait_for_log(&setting, &format!("chown -R nobody: {}", spool.display()));
    setting.agent.print(&["feed", "hold"]).unwrap();
    wait_for_log(&setting, &format!("chown -R nobody: {}\n", state.display()));
}

/// Has the next agent run as nobody, who may not attach, but take the guarded port.
fn become_nobody(setting: &mut Setting, state: &Path) {
    let program = setting.lab.directory().join("exogate");
    fs::copy(agent_binary().unwrap(), &program).unwrap();
    let script = setting.lab.directory().join("as-nobody");
    let text = format!(
        "#!/bin/sh\nexec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups {} \"$@\"\n",
        program.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    setting.lab.edge().sysctl(&[("ipv4/ip_unprivileged_port_start", "0")]).unwrap();
    setting.agent.use_binary(script);
    setting.agent.set("interfaces", Vec::<String>::new()).unwrap();
    let socket = state.join("control.sock");
    setting.agent.set("admin.socket", socket.to_str().unwrap()).unwrap();
}

/// All files and directories in a directory.
fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            let inside = if path.is_dir() { below(&path) } else { Vec::new() };
            [vec![path], inside].concat()
        })
        .collect()
}

fn wait_for_log(setting: &Setting, what: &str) {
    let begin = Instant::now();
    while !setting.agent.log().contains(what) {
        assert!(begin.elapsed() < SOON, "{what:?} is not in {}", setting.agent.log());
        sleep(Duration::from_millis(20));
    }
}
