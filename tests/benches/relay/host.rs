//! What the kernel knows about processes, and a place of our own to run them in.

use std::{
    env, fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// The core of the proxy under test.
pub const PROXY_CORE: &str = "0";
/// The core of the generator and the upstream.
const OUR_CORE: &str = "1";
/// The unit of times in /proc, the same on all architectures.
const TICK: Duration = Duration::from_millis(10);
const INSIDE: &str = "EXOGATE_BENCH_INSIDE";

/// Starts this program again inside: with a network and process numbers of its own,
/// where whatever it starts ends with it; on its core; with files enough for 10,000
/// connections at both ends; and before everything else that the machine has to do.
/// Returns inside.
pub fn enter() -> Result<Option<ExitCode>> {
    if env::var_os(INSIDE).is_some() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
        ensure!(up.success(), "ip link set lo up: {up}");
        for (name, value) in [
            ("ipv4/ip_local_port_range", "1024 65535"),
            ("ipv4/ip_local_reserved_ports", "2000-2099"),
            // A port can be used again after a second, for connections of the loopback.
            ("ipv4/tcp_tw_reuse", "2"),
            ("core/somaxconn", "4096"),
        ] {
            fs::write(format!("/proc/sys/net/{name}"), value).context(name)?;
        }
        // Where there are no such groups, nice alone does it.
        let _ = fs::write("/proc/self/autogroup", "-20");
        return Ok(None);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .args(["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["prlimit", "--nofile=20000"])
        // A session of its own is a group of its own to the scheduler.
        .args(["setsid", "nice", "-n", "-20"])
        .args(["taskset", "--cpu-list", OUR_CORE])
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1");
    // What outlives this process, by a signal to it, is ended by the kernel.
    let status = command.process_group(0).status().context("setpriv cannot be started")?;
    Ok(Some(ExitCode::from(u8::try_from(status.code().unwrap_or(1))?)))
}

/// The time that a process and its descendants have spent, in the kernel and outside.
pub fn cpu_time(process: u32) -> Result<Duration> {
    let mut ticks = 0;
    for process in family(process)? {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The name, which may hold anything, ends with the last parenthesis.
        let (_, fields) = stat.rsplit_once(") ").context("/proc has another form")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        ticks += fields[11].parse::<u32>()? + fields[12].parse::<u32>()?;
    }
    Ok(TICK * ticks)
}

/// The memory of a process and its descendants, of what they share only a share: MiB.
#[derive(Clone, Copy)]
pub struct Memory {
    /// All of it.
    pub all: f64,
    /// Without what is mapped from files, which is programs and libraries.
    pub anonymous: f64,
}

/// The memory of a process and its descendants.
pub fn memory(process: u32) -> Result<Memory> {
    let mut memory = Memory { all: 0.0, anonymous: 0.0 };
    for process in family(process)? {
        let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        for (name, sum) in [("Pss:", &mut memory.all), ("Pss_Anon:", &mut memory.anonymous)] {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name)).context(name)?;
            let kilobytes: f64 = line.trim_end_matches("kB").trim().parse()?;
            *sum += kilobytes / 1024.0;
        }
    }
    Ok(memory)
}

fn family(process: u32) -> Result<Vec<u32>> {
    let mut family = vec![process];
    let mut looked_at = 0;
    while let Some(process) = family.get(looked_at) {
        let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"))?;
        for child in children.split_whitespace() {
            family.push(child.parse()?);
        }
        looked_at += 1;
    }
    Ok(family)
}

/// The kind of file system that a path is on.
pub fn file_system(path: &Path) -> Result<String> {
    let output = Command::new("stat").args(["--file-system", "--format=%T"]).arg(path).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The first line that a program prints.
pub fn first_line(program: &str, argument: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).output().context(program.to_owned())?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8(text)?.lines().next().unwrap_or_default().to_owned())
}
