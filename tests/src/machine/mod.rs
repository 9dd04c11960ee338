//! A machine with a real systemd as PID 1, on the edge host of a lab.
//!
//! It is this machine under an overlay that is thrown away, booted by systemd-nspawn into
//! a target that starts nothing. Its network is the edge host's, so that the lab's senders
//! reach it, and its BPF file system the lab's. Programs run inside by nsenter, with the
//! rights of root; what the service may do is up to its unit.
//!
//! Everything lies below the lab's directory and in its namespaces, so the lab's janitor
//! takes it down, however the test ends.

mod package;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

pub use self::package::{newer_package, newer_rpm_package, package, rpm_package};
use crate::{
    lab::Lab,
    process::{Output, check, run, wait},
};

/// How long it may take to boot, and a command in it.
const PATIENCE: Duration = Duration::from_secs(240);
/// What it boots into: nothing but what every start needs.
const TARGET: &str = "[Unit]\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n";
const TARGET_NAME: &str = "machine.target";

/// The machine, which runs.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    log: PathBuf,
    nspawn: Child,
    /// PID 1, as this machine counts.
    init: Pid,
    lab: Lab,
}

impl Machine {
    /// Boots it.
    ///
    /// # Errors
    ///
    /// If a container cannot be booted here; with what was said.
    pub fn boot(lab: &Lab) -> Result<Self> {
        let base = lab.directory().join("machine");
        fs::create_dir(&base)?;
        let none: Option<&str> = None;
        mount(Some("tmpfs"), &base, Some("tmpfs"), MsFlags::empty(), none)
            .context("a tmpfs cannot be mounted")?;
        let [root, upper, work] = ["root", "upper", "work"].map(|name| base.join(name));
        for directory in [&root, &upper, &work] {
            fs::create_dir(directory)?;
        }
        let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .context("this machine cannot be mounted under an overlay")?;
        prepare(&root)?;

        let log = base.join("console");
        let nspawn = power_on(lab, &root, &log)?;
        let mut machine = Self { root, log, nspawn, init: Pid::from_raw(0), lab: lab.clone() };
        machine.wait_for_boot()?;
        Ok(machine)
    }

    /// Shuts down in order and boots again. What was pinned is gone then, as it is when a
    /// host reboots.
    ///
    /// # Errors
    ///
    /// If it does not go down, or does not boot.
    pub fn reboot(&mut self) -> Result<()> {
        self.shut_down()?;
        let pins = self.lab.pin_directory().join("exogate");
        check(Command::new("rm").arg("-rf").arg(pins), "")?;
        self.nspawn = power_on(&self.lab, &self.root, &self.log)?;
        self.wait_for_boot()
    }

    /// Shuts down in order. Its files stay, below [`Machine::path`].
    ///
    /// # Errors
    ///
    /// If it does not go down.
    pub fn shut_down(&mut self) -> Result<()> {
        // systemd's signal for power-off.
        check(Command::new("kill").args(["-s", "RTMIN+4", &self.init.to_string()]), "")?;
        wait(&mut self.nspawn, PATIENCE).context("the machine does not go down")?;
        self.init = Pid::from_raw(0);
        Ok(())
    }

    fn wait_for_boot(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.nspawn.try_wait()? {
                bail!("the machine does not boot ({status})\n{}", self.console());
            }
            if let Some(init) = init_below(self.nspawn.id()) {
                self.init = init;
                if self.run(&["systemctl", "is-active", TARGET_NAME])?.code == 0 {
                    return Ok(());
                }
            }
            ensure!(begin.elapsed() < PATIENCE, "the machine does not boot\n{}", self.console());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// A file of the machine, as this one sees it.
    #[must_use]
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// Runs a program inside as root.
    ///
    /// # Errors
    ///
    /// If it does not end in time. An exit code is no error.
    pub fn run(&self, program: &[&str]) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.init))
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"])
            .args(program)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        run(&mut command, PATIENCE)
    }

    /// Runs a program inside and expects success; returns what it printed.
    ///
    /// # Errors
    ///
    /// If it fails; with the journal of the service.
    pub fn check(&self, program: &[&str]) -> Result<String> {
        let Output { code, stdout, stderr } = self.run(program)?;
        ensure!(code == 0, "{program:?} ended with {code}: {stdout}{stderr}\n{}", self.journal());
        Ok(stdout)
    }

    /// A property of a unit.
    ///
    /// # Errors
    ///
    /// If systemd does not answer.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let printed = self.check(&["systemctl", "show", "--value", "--property", name, unit])?;
        Ok(printed.trim().to_owned())
    }

    /// Waits until `holds` does.
    ///
    /// # Errors
    ///
    /// If it does not in time; with the journal of the service.
    pub fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
        let begin = Instant::now();
        while !holds() {
            ensure!(
                begin.elapsed() < PATIENCE,
                "not within {PATIENCE:?}: {what}\n{}",
                self.journal()
            );
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// What the service logged.
    #[must_use]
    pub fn journal(&self) -> String {
        let arguments = ["journalctl", "--no-pager", "--unit", "exogate", "--output", "cat"];
        match self.run(&arguments) {
            Ok(output) => format!("--- journal\n{}{}---", output.stdout, output.stderr),
            Err(error) => format!("no journal: {error:#}"),
        }
    }

    fn console(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        format!("--- console\n{}---", String::from_utf8_lossy(&text))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}\n{}", self.journal(), self.console());
        }
        // PID 1 ends at once, and with it everything inside.
        if self.init.as_raw() > 0 {
            let _ = kill(self.init, Signal::SIGKILL);
        }
        if wait(&mut self.nspawn, Duration::from_secs(10)).is_err() {
            eprintln!("systemd-nspawn had to be killed");
        }
    }
}

fn power_on(lab: &Lab, root: &Path, log: &Path) -> Result<Child> {
    let output = File::create(log)?;
    Command::new("systemd-nspawn")
        .args(["--quiet", "--boot", "--register=no", "--keep-unit"])
        .arg("--directory")
        .arg(root)
        .arg(format!("--network-namespace-path={}", lab.edge().path().display()))
        .arg(format!("--bind={}:/sys/fs/bpf", lab.pin_directory().display()))
        .arg("--capability=CAP_BPF,CAP_NET_ADMIN,CAP_PERFMON")
        .arg("--system-call-filter=bpf perf_event_open")
        .arg(format!("systemd.unit={TARGET_NAME}"))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("systemd-nspawn cannot be started; it is in package systemd-container")
}

/// Makes the copy of this machine one where packages may start services, and that has
/// never had this one.
fn prepare(root: &Path) -> Result<()> {
    let remove = |path: &str| match fs::remove_file(root.join(path)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("{path} cannot be removed")),
    };
    remove("usr/sbin/policy-rc.d")?;
    fs::write(root.join("etc/systemd/system").join(TARGET_NAME), TARGET)?;
    for trace in ["etc/exogate", "var/lib/exogate", "usr/bin/exogate"] {
        ensure!(
            !root.join(trace).exists(),
            "/{trace} is there: the test of a first installation needs a machine without exogate"
        );
    }
    Ok(())
}

/// The process that is PID 1 in a namespace that `nspawn` made.
fn init_below(nspawn: u32) -> Option<Pid> {
    let parent = nspawn.to_string();
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        let is_child = value("PPid:")?.trim() == parent;
        let is_init = value("NSpid:")?.split_whitespace().last() == Some("1");
        let nested = value("NSpid:")?.split_whitespace().count() > 1;
        (is_child && is_init && nested)
            .then(|| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))?
    })
}
