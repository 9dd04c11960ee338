//! An interface of WireGuard: frames begin with the IP header, in generic mode.

use std::{path::Path, process::Command};

use exogate::gate::{Attach, Gate, Mode, Options, Spares};
use exogate_ebpf::{
    compile::compile,
    packet::LinkLayer,
    verdict::{Action, Reason},
};
use exogate_tests::process::check;

use super::{beside_a_veth_pair, verdict};

#[test]
#[ignore = "the kernel has to know WireGuard: `other_kernels_do_the_same` runs it where it does"]
fn what_comes_by_wireguard_is_judged() {
    beside_a_veth_pair(async |pins| judge(pins).await);
}

async fn judge(pin_directory: &Path) {
    for order in ["link add wg0 type wireguard", "link set wg0 up"] {
        check(Command::new("ip").args(order.split(' ')), "").unwrap();
    }
    let table = compile(&verdict::spec::policy()).unwrap();
    let options =
        Options { attach: Attach::Auto, capacity: 1000, pin_directory: pin_directory.to_owned() };
    let gate = Gate::open("wg0", &options, &table, &mut Spares::default()).await.unwrap();
    assert_eq!((gate.interface().link_layer, gate.mode()), (LinkLayer::None, Mode::Generic));
    let cases = verdict::spec::cases();
    let bare = cases.iter().filter(|case| case.link_layer == LinkLayer::None);
    let refused = bare.filter(|case| {
        (case.expected.0, case.expected.1) == (Action::Drop, Reason::Unlisted)
            && case.fits_test_run()
    });
    let mut expected = 0;
    for case in refused {
        gate.program().test_run(&case.frame, 1).unwrap();
        expected += 1;
    }
    let counts = gate.program().counts().unwrap();
    let refused = counts
        .iter()
        .filter(|count| (count.action, count.reason) == (Action::Drop, Reason::Unlisted))
        .map(|count| count.packets);
    assert_eq!(refused.sum::<u64>(), expected);
    assert!(expected > 10, "{expected} packets of strangers");
    gate.detach().unwrap();
}
