//! The rights that the packaged unit gives the agent, and what it keeps of them.
//!
//! The real agent is started as another user than root, with three capabilities and a
//! bounding set of these. Linux before 5.19 wants CAP_BPF for the use of maps, so there every
//! thread keeps it; later ones want nothing.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use exogate_tests::process::{agent_binary, check, wait};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{PATIENCE, beside_a_veth_pair, version};

/// Somebody who owns nothing.
pub(super) const USER: u32 = 65_534;
const BPF: u64 = 1 << 39;
/// CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF.
const TO_ATTACH: u64 = 1 << 12 | 1 << 38 | BPF;
/// The name of the thread that attaches.
const ATTACHER: &str = "exogate-attach";

#[test]
fn an_agent_that_is_not_root_keeps_what_the_kernel_demands_and_no_more() {
    beside_a_veth_pair(async |pins| {
        fs::create_dir(pins).unwrap();
        chown(pins, Some(USER), Some(USER)).unwrap();
        check(Command::new("ip").args(["link", "set", "lo", "up"]), "").unwrap();
        let state = tempfile::tempdir().unwrap();
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(state.path(), Some(USER), Some(USER)).unwrap();
        let config = state.path().join("exogate.toml");
        let configure = |privileges: &str| {
            fs::write(&config, configuration(privileges, pins, state.path())).unwrap();
        };
        let kept = if works_without_capabilities() { 0 } else { BPF };

        configure("keep");
        let mut agent = Agent::start(&config);
        agent.wait_for("one thread keeps the right to attach");
        assert_eq!(agent.capabilities(|thread| thread == ATTACHER), BTreeSet::from([TO_ATTACH]));
        assert_eq!(agent.capabilities(|thread| thread != ATTACHER), BTreeSet::from([kept]));

        configure("drop");
        kill(agent.pid(), Signal::SIGHUP).unwrap();
        // It has published by then, with what it kept.
        agent.wait_for("the right to attach is given up");
        // A thread that has ended can be seen for a moment longer.
        let begin = Instant::now();
        while agent.capabilities(|_| true) != BTreeSet::from([kept]) {
            assert!(begin.elapsed() < PATIENCE, "{:x?}", agent.capabilities(|_| true));
            thread::sleep(Duration::from_millis(10));
        }
        println!("kept: {kept:#x}");

        kill(agent.pid(), Signal::SIGTERM).unwrap();
        assert!(wait(&mut agent.process, PATIENCE).unwrap().success());
        let gate = exogate::gate::interface::find("gate0").await.unwrap();
        assert!(gate.xdp.is_some(), "the filter did not outlive the agent");
    });
}

pub(super) fn configuration(privileges: &str, pins: &Path, state: &Path) -> String {
    format!(
        "interfaces = [\"gate0\"]\nprivileges = {privileges:?}\nstate_directory = {state:?}\n\
         [gate]\ncapacity = 1000\npin_directory = {pins:?}\n\
         [feed]\nfirst_poll_within = \"1h\"\n\
         [admin]\nsocket = {socket:?}\n",
        socket = state.join("control.sock"),
    )
}

/// c8644cd0efe7 ("bpf: refine kernel.unprivileged_bpf_disabled behaviour"), Linux 5.19.
fn works_without_capabilities() -> bool {
    version() >= (5, 19)
}

/// The agent with the rights that the unit gives it.
struct Agent {
    process: Child,
    log: Receiver<String>,
}

impl Agent {
    fn start(config: &Path) -> Self {
        let rights = "-all,+net_admin,+perfmon,+bpf";
        // As the unit has it: kernels before 5.11 count maps as locked memory. By its path,
        // because a busybox prefers a lesser one of its own.
        let script = format!(
            "ulimit -l unlimited; exec /bin/setpriv --reuid {USER} --regid {USER} --clear-groups \
             --no-new-privs --bounding-set {rights} --inh-caps {rights} --ambient-caps {rights} \
             {} run --config {}",
            agent_binary().unwrap().display(),
            config.display()
        );
        let mut process =
            Command::new("sh").args(["-c", &script]).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|l| sender.send(l)));
        Self { process, log: lines }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().try_into().unwrap())
    }

    fn wait_for(&self, text: &str) {
        let begin = Instant::now();
        let mut said = Vec::new();
        while !said.last().is_some_and(|line: &String| line.contains(text)) {
            let rest = PATIENCE.saturating_sub(begin.elapsed());
            match self.log.recv_timeout(rest) {
                Ok(line) => said.push(line),
                Err(error) => panic!("{error}, waiting for {text:?}:\n{}", said.join("\n")),
            }
        }
    }

    /// What is in any set but the bounding one of the threads with such names, together.
    fn capabilities(&self, is_meant: impl Fn(&str) -> bool) -> BTreeSet<u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        // One that has ended meanwhile has none.
        let threads = tasks.filter_map(|task| {
            let task = task.unwrap().path();
            let read = |name| fs::read_to_string(task.join(name)).ok();
            Some((read("comm")?, read("status")?))
        });
        let meant = threads.filter(|(name, _)| is_meant(name.trim()));
        meant
            .map(|(_, status)| {
                let sets = status.lines().filter_map(|line| {
                    let (name, mask) = line.split_once(':')?;
                    ["CapInh", "CapPrm", "CapEff", "CapAmb"]
                        .contains(&name)
                        .then(|| u64::from_str_radix(mask.trim(), 16).unwrap())
                });
                sets.fold(0, |all, set| all | set)
            })
            .collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended already, if all went well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
