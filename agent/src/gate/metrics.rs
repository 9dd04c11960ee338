//! The gate's metrics. Counters are read from the kernel at each scrape.

use std::collections::BTreeMap;

use exogate_ebpf::abi::ABI_VERSION;
use prometheus::{
    CounterVec, Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::gate::{Gates, Mode};

/// What the gate's owner counts.
#[derive(Clone)]
pub struct Metrics {
    /// Publishes by `result`: `ok` or `failed`.
    pub publishes: IntCounterVec,
    /// Seconds from a list to its table in force.
    pub publish_seconds: Histogram,
    /// Recorded drops read from the kernel, by interface.
    pub events: IntCounterVec,
    /// Seconds from when an interface was noticed to its filter.
    pub attach_seconds: Histogram,
    /// Seconds that interfaces were there without the filter, by `configured`.
    pub open_seconds: CounterVec,
    states: IntGaugeVec,
}

/// What a configured interface can be.
const STATES: [&str; 3] = ["filtered", "open", "absent"];

impl Metrics {
    /// Registers the metrics of these gates.
    ///
    /// # Errors
    ///
    /// If a name is taken.
    pub fn register(registry: &Registry, gates: &Gates) -> prometheus::Result<Self> {
        registry.register(Box::new(Kernel::new(gates.clone())?))?;
        let publishes = IntCounterVec::new(
            Opts::new(
                "exogate_gate_publishes_total",
                "Tables compiled and put in force, by result: ok or failed.",
            ),
            &["result"],
        )?;
        for result in ["ok", "failed"] {
            publishes.with_label_values(&[result]);
        }
        let publish_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "exogate_gate_publish_duration_seconds",
                "Time to compile a list and put its table in force on every interface.",
            )
            .buckets(vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]),
        )?;
        let events = IntCounterVec::new(
            Opts::new(
                "exogate_gate_drop_events_total",
                "Drops that the kernel recorded one by one for the log; rate-limited, so fewer than the drops.",
            ),
            &["interface"],
        )?;
        registry.register(Box::new(publishes.clone()))?;
        registry.register(Box::new(publish_seconds.clone()))?;
        registry.register(Box::new(events.clone()))?;
        let attach_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "exogate_gate_attach_duration_seconds",
                "Time from when the agent learns of an interface until the filter is on it.",
            )
            .buckets(vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]),
        )?;
        let open_seconds = CounterVec::new(
            Opts::new(
                "exogate_gate_open_seconds_total",
                "Time that interfaces were there without the filter, by entry of the configuration.",
            ),
            &["configured"],
        )?;
        let states = IntGaugeVec::new(
            Opts::new(
                "exogate_gate_interface_state",
                "1 for the state of a configured interface: filtered, open (there, without the filter) or absent.",
            ),
            &["interface", "state"],
        )?;
        registry.register(Box::new(attach_seconds.clone()))?;
        registry.register(Box::new(open_seconds.clone()))?;
        registry.register(Box::new(states.clone()))?;
        Ok(Self { publishes, publish_seconds, events, attach_seconds, open_seconds, states })
    }

    /// Shows the state of each interface.
    pub fn show_states(&self, interfaces: &BTreeMap<String, &'static str>) {
        for (interface, is) in interfaces {
            for state in STATES {
                let value = i64::from(state == *is);
                self.states.with_label_values(&[interface, state]).set(value);
            }
        }
    }

    /// Shows no state of an interface any more.
    pub fn forget_states(&self, interface: &str) {
        for state in STATES {
            // It is there, or it is gone already.
            let _ = self.states.remove_label_values(&[interface, state]);
        }
    }
}

/// Reads the kernel's side at each scrape.
struct Kernel {
    gates: Gates,
    packets: Opts,
    bytes: Opts,
    attached: IntGaugeVec,
    abi: IntGaugeVec,
    descriptions: Vec<Desc>,
}

const LABELS: [&str; 4] = ["interface", "action", "reason", "family"];

impl Kernel {
    fn new(gates: Gates) -> prometheus::Result<Self> {
        let packets = Opts::new(
            "exogate_gate_packets_total",
            "Packets by interface, action (pass, drop, would_drop), reason and family.",
        );
        let bytes = Opts::new(
            "exogate_gate_bytes_total",
            "Bytes by interface, action (pass, drop, would_drop), reason and family.",
        );
        let attached = IntGaugeVec::new(
            Opts::new(
                "exogate_gate_attached",
                "1 for the mode in which the filter is attached to the interface: native, generic or offloaded.",
            ),
            &["interface", "mode"],
        )?;
        let abi = IntGaugeVec::new(
            Opts::new("exogate_gate_abi_version", "ABI version of the maps in force."),
            &["interface"],
        )?;
        let descriptions = [
            IntCounterVec::new(packets.clone(), &LABELS)?.desc(),
            IntCounterVec::new(bytes.clone(), &LABELS)?.desc(),
            attached.desc(),
            abi.desc(),
        ]
        .concat()
        .into_iter()
        .cloned()
        .collect();
        Ok(Self { gates, packets, bytes, attached, abi, descriptions })
    }
}

impl Collector for Kernel {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // The kernel's counters are absolute, so each scrape fills fresh ones.
        let (Ok(packets), Ok(bytes)) = (
            IntCounterVec::new(self.packets.clone(), &LABELS),
            IntCounterVec::new(self.bytes.clone(), &LABELS),
        ) else {
            return Vec::new();
        };
        self.attached.reset();
        self.abi.reset();
        self.gates.map(|gate| {
            let interface = gate.interface().name.as_str();
            for mode in Mode::ALL {
                let attached = i64::from(gate.attached() && gate.mode() == mode);
                self.attached.with_label_values(&[interface, mode.name()]).set(attached);
            }
            self.abi.with_label_values(&[interface]).set(ABI_VERSION.into());
            match gate.program().counts() {
                Ok(counts) => {
                    for count in counts {
                        let labels = [
                            interface,
                            count.action.name(),
                            count.reason.name(),
                            count.family.name(),
                        ];
                        packets.with_label_values(&labels).inc_by(count.packets);
                        bytes.with_label_values(&labels).inc_by(count.bytes);
                    }
                }
                Err(error) => tracing::warn!(interface, %error, "cannot read the counters"),
            }
        });
        [packets.collect(), bytes.collect(), self.attached.collect(), self.abi.collect()].concat()
    }
}
