//! `exogate top`: the running agent, live, in a terminal.
//!
//! The agent is asked once an interval, like `exogate status` does; nothing runs in it for this
//! view. If it goes away, what was last seen stays on the screen, marked as old, until it is
//! back. However the view ends, the terminal is as it was before.

mod latency;
mod rates;
mod view;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::{select, sync::mpsc, time::MissedTickBehavior};

use self::{latency::Latencies, rates::Rates};
use super::{Failure, File};
use crate::admin::{api::Status, client};

/// How often the keyboard is looked at.
const KEYBOARD: Duration = Duration::from_millis(100);

/// What is shown.
struct Model {
    status: Status,
    rates: Rates,
    latencies: Latencies,
    /// Why the agent did not answer, if it did not.
    gone: Option<String>,
}

/// What somebody typed, or did to the window.
enum Input {
    Quit,
    Redraw,
}

pub(super) async fn run(file: &File, interval: Duration) -> Result<ExitCode, Failure> {
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        return Err(Failure::usage("this needs a terminal; use `exogate status` without one"));
    }
    let socket = file.load_to_ask()?.admin.socket;
    let status: Status = client::get(&socket, "/v1/status").await.map_err(Failure::new)?;
    let mut model =
        Model { status, rates: Rates::default(), latencies: Latencies::default(), gone: None };
    let mut terminal = ratatui::try_init().map_err(Failure::new)?;
    let _restore = Restore;
    let mut input = keyboard();
    let mut ticks = tokio::time::interval(interval.max(KEYBOARD));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        select! {
            _ = ticks.tick() => match client::get::<Status>(&socket, "/v1/status").await {
                Ok(status) => {
                    model.rates.add(&status, Instant::now());
                    model.status = status;
                    model.gone = None;
                    if let Ok(page) = client::get_text(&socket, "/metrics").await {
                        model.latencies.add(&String::from_utf8_lossy(&page));
                    }
                }
                Err(error) => model.gone = Some(error.to_string()),
            },
            typed = input.recv() => match typed {
                Some(Input::Redraw) => {}
                Some(Input::Quit) | None => return Ok(ExitCode::SUCCESS),
            },
        }
        terminal.draw(|frame| view::draw(frame, &model)).map_err(Failure::new)?;
    }
}

/// Reads the keyboard in a thread of its own, which ends with whoever listens.
fn keyboard() -> mpsc::Receiver<Input> {
    let (sender, input) = mpsc::channel(8);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let input = match event::poll(KEYBOARD) {
                Ok(false) => continue,
                Ok(true) => event::read().ok().and_then(|event| understand(&event)),
                // The terminal is gone.
                Err(_) => Some(Input::Quit),
            };
            if let Some(input) = input
                && sender.blocking_send(input).is_err()
            {
                return;
            }
        }
    });
    input
}

fn understand(event: &Event) -> Option<Input> {
    match event {
        Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
            KeyCode::Char('q') | KeyCode::Esc => Some(Input::Quit),
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                Some(Input::Quit)
            }
            _ => None,
        },
        Event::Resize(..) => Some(Input::Redraw),
        _ => None,
    }
}

/// Gives the terminal back.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        ratatui::restore();
    }
}
