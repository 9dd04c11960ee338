//! What the service manager is told (sd_notify(3)).
//!
//! Ready is the agent when the filter is on every interface that there is; it waits
//! neither for a feed nor for an interface that may appear later, because at boot the
//! network waits for the agent. The status line says what is missing.
//!
//! Without a service manager nothing happens; with one that does not listen, the agent
//! goes on, and is started anew when its watchdog is not fed.

use sd_notify::NotifyState;

/// The service manager.
pub(super) struct Supervisor {
    present: bool,
    status: String,
}

impl Supervisor {
    /// The one that started this process, if any.
    pub(super) fn of_this_process() -> Self {
        Self { present: std::env::var_os("NOTIFY_SOCKET").is_some(), status: String::new() }
    }

    /// Whether there is one, that would start the agent anew.
    pub(super) fn is_present(&self) -> bool {
        self.present
    }

    /// The start is complete, or the reload.
    pub(super) fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// The configuration is read again; [`Supervisor::ready`] ends it.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// The agent is about to end.
    pub(super) fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Feeds the watchdog.
    pub(super) fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// What the agent does, in a line; told if it is another than before.
    pub(super) fn status(&mut self, status: String) {
        if self.present && self.status != status {
            self.tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    fn tell(&self, what: &[NotifyState<'_>]) {
        if self.present
            && let Err(error) = sd_notify::notify(what)
        {
            tracing::debug!(%error, "the service manager does not listen");
        }
    }
}
