//! What replacing a whole list costs: compile and publish, beside the kernel's LPM
//! tries, ipset and nftables with the same prefixes. Run by `cargo xtask bench
//! tables`; needs root.
//!
//! nft and ipset read their list from a file in a network namespace of their own,
//! as an operator's script would have them do.

use std::{env, fs, net::IpAddr, path::Path, process::Command, time::Instant};

use anyhow::Result;
use aya::{
    Ebpf,
    maps::lpm_trie::{Key, LpmTrie},
};
use exogate::gate::Program;
use exogate_ebpf::{
    compile::{Guard, Policy, Prefix, Protocol, compile},
    packet::LinkLayer,
};
use exogate_tests::lists::{exchange, service_tags, spread};
use ipnet::IpNet;

use crate::support::{Report, figure, middle};

const ROUNDS: usize = 5;
const NAMESPACE: &str = "exogate-bench";

const COLUMNS: [&str; 8] =
    ["prefixes", "compile", "publish", "both", "LPM tries", "ipset", "nftables", "process peak"];

pub fn bench() -> Result<()> {
    let mut report = Report::begin("tables")?;
    report.table(
        &format!(
            "Seconds to put a whole list in force; median of {ROUNDS} rounds (least..most). The \
             LPM tries, ipset and nftables are filled once where they take more than 5 s."
        ),
        &COLUMNS,
    );
    let _namespace = Namespace::new();
    let directory = env::temp_dir().join(format!("{NAMESPACE}-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    for nets in [exchange().unwrap(), service_tags().unwrap(), spread(1_000_000, false)] {
        let (row, both) = measure(&nets, &directory);
        report.row(&row);
        let goal = match nets.len() {
            0..1_000 => continue,
            1_000..100_000 => 0.1,
            _ => 1.5,
        };
        let wanted = format!("{} prefixes: under {goal} s", nets.len());
        report.target(&wanted, format!("{both:.3} s"), both < goal);
    }
    fs::remove_dir_all(&directory).unwrap();
    report.finish()
}

/// The row of a list, and what compiling and publishing take together.
fn measure(nets: &[IpNet], directory: &Path) -> ([String; 8], f64) {
    let (mut compiling, mut publishing, mut both) = (Vec::new(), Vec::new(), Vec::new());
    let mut program = Program::load(LinkLayer::Ethernet, nets.len() as u32 + 1).unwrap();
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
    let peak = peak_memory();
    let trie = rounds(|| fill_tries(nets));
    let ipset = rounds(|| fill_ipset(nets, directory));
    let nft = rounds(|| fill_nft(nets, directory));
    let [compiling, publishing, all, trie, ipset, nft] =
        [compiling, publishing, both.clone(), trie, ipset, nft].map(|times| figure(&times, 3));
    let row = [nets.len().to_string(), compiling, publishing, all, trie, ipset, nft, peak];
    (row, middle(&both))
}

fn rounds(mut fill: impl FnMut() -> f64) -> Vec<f64> {
    let first = fill();
    let mut times = vec![first];
    if first <= 5.0 {
        times.extend((1..ROUNDS).map(|_| fill()));
    }
    times
}

fn peak_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.trim_start_matches("VmHWM:").trim().to_owned()
}

fn fill_tries(nets: &[IpNet]) -> f64 {
    let path = env::var("EXOGATE_TWINS_OBJECT")
        .expect("EXOGATE_TWINS_OBJECT is not set; run `cargo xtask bench tables`");
    let mut twins = Ebpf::load_file(path).unwrap();
    let begin = Instant::now();
    let mut v4 = LpmTrie::<_, [u8; 4], u32>::try_from(twins.take_map("TRIE_V4").unwrap()).unwrap();
    let mut v6 = LpmTrie::<_, [u8; 16], u32>::try_from(twins.take_map("TRIE_V6").unwrap()).unwrap();
    for net in nets {
        let length = u32::from(net.prefix_len());
        match net.network() {
            IpAddr::V4(address) => {
                v4.insert(&Key::new(length, address.octets()), 1, 0).unwrap();
            }
            IpAddr::V6(address) => {
                v6.insert(&Key::new(length, address.octets()), 1, 0).unwrap();
            }
        }
    }
    begin.elapsed().as_secs_f64()
}

fn fill_ipset(nets: &[IpNet], directory: &Path) -> f64 {
    let mut script = String::new();
    for (name, family) in [("v4", "inet"), ("v6", "inet6")] {
        let most = nets.len().max(1);
        script.push_str(&format!("create {name} hash:net family {family} maxelem {most}\n"));
    }
    for net in nets {
        script.push_str(&format!("add {} {net}\n", if net.addr().is_ipv4() { "v4" } else { "v6" }));
    }
    let file = directory.join("ipset");
    fs::write(&file, script).unwrap();
    let time = run(&["ipset", "restore", "-file", file.to_str().unwrap()]);
    run(&["ipset", "destroy"]);
    time
}

fn fill_nft(nets: &[IpNet], directory: &Path) -> f64 {
    let mut script = String::from("table inet bench {\n");
    for (name, kind, v4) in [("v4", "ipv4_addr", true), ("v6", "ipv6_addr", false)] {
        let elements: Vec<String> =
            nets.iter().filter(|net| net.addr().is_ipv4() == v4).map(ToString::to_string).collect();
        script.push_str(&format!("set {name} {{ type {kind}; flags interval; auto-merge;"));
        if !elements.is_empty() {
            script.push_str(&format!(" elements = {{ {} }}", elements.join(",\n")));
        }
        script.push_str(" }\n");
    }
    script.push_str("}\n");
    let file = directory.join("nft");
    fs::write(&file, script).unwrap();
    let time = run(&["nft", "-f", file.to_str().unwrap()]);
    run(&["nft", "flush", "ruleset"]);
    time
}

fn run(command: &[&str]) -> f64 {
    let begin = Instant::now();
    let status = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{NAMESPACE}"))
        .args(command)
        .status()
        .unwrap();
    assert!(status.success(), "{command:?}: {status}");
    begin.elapsed().as_secs_f64()
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
