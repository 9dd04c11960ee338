//! What replacing a whole list costs, and what memory of the kernel it takes: compile and
//! publish, beside the kernel's LPM tries, ipset and nftables with the same prefixes. Run by
//! `cargo xtask bench tables`; needs root.
//!
//! nft and ipset read their list from a file in a network namespace of their own,
//! as an operator's script would have them do.

mod memory;

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::Result;
use exogate::gate::Program;
use exogate_ebpf::{
    compile::{Guard, Policy, Prefix, Protocol, compile},
    packet::LinkLayer,
};
use exogate_tests::lists::{exchange, service_tags, spread};
use ipnet::IpNet;

use crate::{
    rig::{fill, ipset_script, nft_table, twins},
    support::{Arguments, Report, middle, time},
};

const ROUNDS: usize = 5;
const NAMESPACE: &str = "exogate-bench";

/// Seconds that it took in each round, and bytes of the kernel's memory.
struct Costs {
    seconds: Vec<f64>,
    bytes: u64,
}

pub fn bench(arguments: &Arguments) -> Result<()> {
    let mut report = Report::begin("tables")?;
    report.line(&format!(
        "Time to put a whole list in force, median of {ROUNDS} rounds (least..most); the LPM \
         tries, ipset and nftables are filled once where they take more than 5 s. The tries are \
         filled with a system call for each prefix."
    ));
    let _namespace = Namespace::new();
    let directory = env::temp_dir().join(format!("{NAMESPACE}-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    measure(&mut report, "34 prefixes", &exchange()?, &directory);
    if !arguments.quick() {
        let azure = measure(&mut report, "53,586 prefixes", &service_tags()?, &directory);
        judge(&mut report, "53,586 prefixes", azure, 0.1);
        for (name, v6) in [("IPv4", false), ("IPv6", true)] {
            let name = format!("1,000,000 prefixes, {name}");
            let million = measure(&mut report, &name, &spread(1_000_000, v6), &directory);
            judge(&mut report, &name, million, 1.5);
        }
    }
    fs::remove_dir_all(&directory)?;
    report.finish()
}

fn judge(report: &mut Report, name: &str, seconds: f64, most: f64) {
    report.target(&format!("{name}: under {most} s"), format!("{seconds:.3} s"), seconds < most);
}

/// Adds the table of a list, and returns what compiling and publishing take together.
fn measure(report: &mut Report, name: &str, nets: &[IpNet], directory: &Path) -> f64 {
    let (mut compiling, mut publishing, mut both) = (Vec::new(), Vec::new(), Vec::new());
    memory::forget_peak();
    let before = memory::of_maps();
    let mut program = Program::load(LinkLayer::Ethernet, nets.len().max(1024) as u32).unwrap();
    for _ in 0..ROUNDS {
        let prefixes = nets
            .iter()
            .map(|net| Prefix { address: net.network(), length: net.prefix_len(), sources: 1 })
            .collect();
        let guards = vec![Guard { protocol: Protocol::Tcp, port: 443, sources: 1 }];
        let policy = Policy { enforce: true, deadline: None, destinations: None, prefixes, guards };
        let begin = Instant::now();
        let table = compile(&policy).unwrap();
        compiling.push(begin.elapsed().as_secs_f64());
        let middle = Instant::now();
        program.publish(&table).unwrap();
        publishing.push(middle.elapsed().as_secs_f64());
        both.push(begin.elapsed().as_secs_f64());
    }
    let maps = memory::of_maps() - before;
    let peak = memory::peak();
    drop(program);
    let peers = [
        ("LPM tries", rounds(|| fill_tries(nets))),
        ("ipset", rounds(|| fill_ipset(nets, directory))),
        ("nftables", rounds(|| fill_nft(nets, directory))),
    ];

    let title = format!("**{name}**; the benchmark's process had at most {} kB", kilobytes(peak));
    report.table(&title, &["", "time", "kernel memory: kB"]);
    for (step, seconds) in [("exogate: compile", &compiling), ("exogate: publish", &publishing)] {
        report.row(&[step, &time(seconds), ""]);
    }
    report.row(&["exogate: both", &time(&both), &kilobytes(maps)]);
    for (peer, Costs { seconds, bytes }) in peers {
        report.row(&[peer, &time(&seconds), &kilobytes(bytes)]);
    }
    middle(&both)
}

fn kilobytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e3)
}

/// Fills several times, and keeps the memory of the first.
fn rounds(mut fill: impl FnMut() -> (f64, u64)) -> Costs {
    let (first, bytes) = fill();
    let mut seconds = vec![first];
    if first <= 5.0 {
        seconds.extend((1..ROUNDS).map(|_| fill().0));
    }
    Costs { seconds, bytes }
}

fn fill_tries(nets: &[IpNet]) -> (f64, u64) {
    let before = memory::of_maps();
    let mut twins = twins().unwrap();
    let begin = Instant::now();
    fill(&mut twins, nets).unwrap();
    (begin.elapsed().as_secs_f64(), memory::of_maps() - before)
}

fn fill_ipset(nets: &[IpNet], directory: &Path) -> (f64, u64) {
    let file = directory.join("ipset");
    fs::write(&file, ipset_script(nets)).unwrap();
    let begin = Instant::now();
    run(&["ipset", "restore", "-file", file.to_str().unwrap()]);
    let seconds = begin.elapsed().as_secs_f64();
    let bytes = memory::of_ipset(&run(&["ipset", "list", "-terse"]));
    run(&["ipset", "destroy"]);
    (seconds, bytes)
}

fn fill_nft(nets: &[IpNet], directory: &Path) -> (f64, u64) {
    let file = directory.join("nft");
    fs::write(&file, nft_table("inet", nets)).unwrap();
    let before = memory::of_kernel();
    let begin = Instant::now();
    run(&["nft", "-f", file.to_str().unwrap()]);
    let seconds = begin.elapsed().as_secs_f64();
    let bytes = memory::of_kernel().saturating_sub(before);
    run(&["nft", "flush", "ruleset"]);
    (seconds, bytes)
}

/// What a command of the namespace prints.
fn run(command: &[&str]) -> String {
    let output = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{NAMESPACE}"))
        .args(command)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A network namespace for the peers' sets, removed at the end.
struct Namespace;

impl Namespace {
    fn new() -> Self {
        let _ = Command::new("ip").args(["netns", "del", NAMESPACE]).output();
        let status = Command::new("ip").args(["netns", "add", NAMESPACE]).status().unwrap();
        assert!(status.success(), "ip netns add: {status}; are you root?");
        Self
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", NAMESPACE]).status();
    }
}
