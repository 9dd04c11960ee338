//! The program on other kernels: loaded, verified, attached, pinned, published to and taken
//! over, what it records, the whole table of verdicts, what comes over a wire, what rights the
//! agent keeps, and what its doctor says.
//!
//! The tests of this directory run on this machine's kernel, and once more under qemu on each
//! other one, where this same executable and the agent are all there is. Needs root, qemu and the kernels
//! that `cargo xtask setup` unpacks: the oldest that is supported and Debian 12's, or all of
//! `EXOGATE_KERNELS`, which `cargo xtask test --kernels` sets.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    reason = "a test stops at the first thing that goes wrong"
)]

mod capabilities;
mod doctor;
#[path = "../kernel_verdict.rs"]
mod verdict;
mod wire;
mod wireguard;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use exogate::gate::{Attach, Count, Gate, Mode, Options, Program, Spares};
use exogate_ebpf::{
    compile::compile,
    packet::LinkLayer,
    verdict::{Action, Family, Reason},
};
use exogate_tests::{
    guest::{Guest, Kernel},
    process::{agent_binary, check},
};
use nix::{
    mount::{MsFlags, mount, umount},
    sched::{CloneFlags, unshare},
    sys::utsname::uname,
};

/// A guest without acceleration on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(300);
/// It starts in ten seconds on a quiet one.
const BOOT: Duration = Duration::from_secs(150);
/// The oldest kernel that is supported, and that of the oldest system with a package.
const USUAL: &str = "linux-image-amd64-bullseye linux-image-amd64";
/// Debian 12's own, with all of its modules.
const WHOLE: &str = "linux-image-amd64";
/// Names the kernels to test on instead, with blanks between them.
const KERNELS: &str = "EXOGATE_KERNELS";
/// Guests that run at once: a test keeps one processor busy, of which the smallest machine
/// that builds this has two.
const AT_ONCE: usize = 2;
/// What an attempt on a guest ends with.
const DONE: &str = "test result: ";

#[test]
fn a_gate_is_attached_pinned_published_to_and_taken_over() {
    beside_a_veth_pair(async |pins| attach(pins).await);
}

#[test]
fn programs_that_were_made_before_their_interfaces_are_put_on_them_and_taken_over() {
    beside_a_veth_pair(async |pins| attach_spare(pins).await);
}

/// Calls with a pin directory, in a network namespace that has `gate0`.
fn beside_a_veth_pair(call: impl AsyncFnOnce(&Path) + Send + 'static) {
    let scratch = tempfile::tempdir().unwrap();
    let pins = scratch.path().to_owned();
    let none: Option<&str> = None;
    mount(Some("bpf"), &pins, Some("bpf"), MsFlags::empty(), none).unwrap();
    let done = thread::spawn({
        let pins = pins.clone();
        move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            check(
                Command::new("ip").args("link add gate0 type veth peer name gate1".split(' ')),
                "",
            )
            .unwrap();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(call(&pins.join("exogate")));
        }
    });
    let done = done.join();
    umount(&pins).unwrap();
    done.unwrap();
}

async fn attach(pin_directory: &Path) {
    let table = compile(&verdict::spec::policy()).unwrap();
    let options =
        Options { attach: Attach::Auto, capacity: 1000, pin_directory: pin_directory.to_owned() };
    let mut gate = Gate::open("gate0", &options, &table, &mut Spares::default()).await.unwrap();
    assert!(!gate.adopted());
    println!("attached in {} mode on Linux {}", gate.mode(), release());
    assert_eq!(gate.mode(), Mode::Native, "a pair of interfaces has native mode on every kernel");
    gate.publish(&table).unwrap();
    refuse_a_stranger(&mut gate).await;
    wire::a_listed_datagram_passes_and_a_strange_one_does_not();
    let program = gate.program().id();
    drop(gate);
    let gate = Gate::open("gate0", &options, &table, &mut Spares::default()).await.unwrap();
    assert!(gate.adopted(), "the filter did not outlive its process");
    assert_eq!(gate.mode(), Mode::Native);
    wire::a_listed_datagram_passes_and_a_strange_one_does_not();
    assert_ne!(gate.program().id(), program);
    gate.detach().unwrap();
    // The kernel lets go of a link when it has the time.
    let begin = Instant::now();
    while exogate::gate::interface::find("gate0").await.unwrap().xdp.is_some() {
        assert!(begin.elapsed() < PATIENCE, "the filter is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn attach_spare(pin_directory: &Path) {
    let table = compile(&verdict::spec::policy()).unwrap();
    let options =
        Options { attach: Attach::Auto, capacity: 1000, pin_directory: pin_directory.to_owned() };
    let mut spares = Spares::default();
    while spares.prepare(&options) {}
    let between = Program::load(LinkLayer::Ethernet, 1000).unwrap().id();
    let mut gate = Gate::open("gate0", &options, &table, &mut spares).await.unwrap();
    // The kernel numbers programs in the order in which they are loaded.
    assert!(gate.program().id() < between, "the program was made when it was needed");
    let other_end = wire::other_end();
    let second = Gate::open(&other_end, &options, &table, &mut spares).await.unwrap();
    assert!(second.program().id() < between, "of two at once one waited for the verifier");
    second.detach().unwrap();
    refuse_a_stranger(&mut gate).await;
    drop(gate);
    let gate = Gate::open("gate0", &options, &table, &mut spares).await.unwrap();
    assert!(gate.adopted(), "the filter did not outlive its process");
    let is_refused =
        |count: &&Count| (count.action, count.reason) == (Action::Drop, Reason::Unlisted);
    let counts = gate.program().counts().unwrap();
    let refused: u64 = counts.iter().filter(is_refused).map(|count| count.packets).sum();
    assert_eq!(refused, 1, "its maps were not kept");
    gate.detach().unwrap();
}

/// A refused packet is recorded in the ring buffer and among the blocked sources.
async fn refuse_a_stranger(gate: &mut Gate) {
    let refused = (Action::Drop, Reason::Unlisted, Family::Ipv4);
    let stranger = verdict::spec::datagram(refused);
    let mut events = gate.events().unwrap();
    gate.program().test_run(&stranger, 1).unwrap();
    let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    assert_eq!((event.reason, event.family), (Reason::Unlisted.name(), Family::Ipv4.name()));
    let blocked = gate.program().blocked(10).unwrap();
    let blocked: Vec<_> = blocked.iter().map(|source| (source.address, source.packets)).collect();
    assert_eq!(blocked, [(event.source, 1)]);
}

/// `uname -r`.
fn release() -> String {
    uname().unwrap().release().to_str().unwrap().to_owned()
}

/// Major and minor number of this kernel.
fn version() -> (u32, u32) {
    let release = release();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A guest whose program has begun. On a busy host an emulated machine hangs now and then
/// before its kernel says anything; it is then switched off and on again, once.
fn boot(kernel: &Kernel, program: &Path, scratch: &Path) -> Guest {
    let beside = [agent_binary().unwrap(), PathBuf::from("/usr/bin/setpriv")];
    let mut arguments = vec!["--test-threads=1", "--nocapture", "--skip", "other_kernels"];
    if kernel.has("wireguard") {
        arguments.push("--include-ignored");
    }
    let start = || {
        let mut guest =
            Guest::start_without_disk(kernel, program, &arguments, &beside, scratch).unwrap();
        guest.wait_for("running ", BOOT).map(|_| guest)
    };
    start().unwrap_or_else(|error| {
        println!("  {error:#}; once more");
        start().unwrap()
    })
}

#[test]
fn other_kernels_do_the_same() {
    let kernels = env::var(KERNELS).unwrap_or_else(|_| USUAL.to_owned());
    let kernels: Vec<_> = kernels.split(' ').collect();
    for together in kernels.chunks(AT_ONCE) {
        thread::scope(|scope| {
            for package in together {
                scope.spawn(|| does_the_same(package));
            }
        });
    }
}

/// Runs the tests of this directory on the kernel of a package.
fn does_the_same(package: &str) {
    let program = env::current_exe().unwrap();
    let kernel = Kernel::of_package(package).unwrap();
    // The one whose package is unpacked whole.
    assert!(package != WHOLE || kernel.has("wireguard"), "{package} has no WireGuard");
    let scratch = tempfile::tempdir().unwrap();
    let mut guest = boot(&kernel, &program, scratch.path());
    loop {
        let line = guest.line(PATIENCE).unwrap();
        let line = line.unwrap_or_else(|| panic!("{package}: the guest ended too early"));
        println!("{package}: {line}");
        if let Some(result) = line.strip_prefix(DONE) {
            assert!(result.starts_with("ok. "), "{package}: {result}");
            return;
        }
    }
}
