//! Logging, and the metrics that belong to no feature.
//!
//! Every feature declares its own metrics beside its code and registers them in
//! the one [`prometheus::Registry`] that `admin` serves. Each name is described
//! in `deploy/prometheus/METRICS.md`; a test holds the two together.

use prometheus::{IntGaugeVec, Opts, Registry, process_collector::ProcessCollector};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// Starts logging to standard error. `RUST_LOG` overrides `level`.
///
/// # Errors
///
/// If `level` is not a level or a filter directive, or logging has started
/// before.
pub fn start_logging(format: LogFormat, level: &str) -> anyhow::Result<()> {
    let filter = match EnvFilter::try_from_default_env() {
        Ok(filter) => filter,
        Err(_) => EnvFilter::try_new(level)?,
    };
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let layer =
                fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(ansi);
            registry.with(layer).try_init()?;
        }
        LogFormat::Json => {
            let layer = fmt::layer().with_writer(std::io::stderr).json().flatten_event(true);
            registry.with(layer).try_init()?;
        }
    }
    Ok(())
}

/// A registry with the metrics of the process and the build.
///
/// # Errors
///
/// If a name is taken.
pub fn registry() -> prometheus::Result<Registry> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let build = IntGaugeVec::new(
        Opts::new("exogate_build_info", "Always 1; the labels say which build runs."),
        &["version"],
    )?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(build))?;
    Ok(registry)
}
