//! A terminal of one's own, to see what a program draws.
//!
//! The program runs on a real pseudo terminal; what it writes goes through an emulator, whose
//! screen is what somebody would see.

use std::{
    fs::File,
    io::{Read, Write},
    num::NonZero,
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::pty::{Winsize, openpty};
use vt100::Parser;

use crate::{lock, process::wait};

/// A program on a terminal. It is killed with its handle.
pub struct Terminal {
    program: Child,
    keyboard: File,
    screen: Arc<Mutex<Parser>>,
}

impl Terminal {
    /// Starts a program on a terminal of so many rows and columns.
    ///
    /// # Errors
    ///
    /// If there is no terminal to be had, or the program cannot be started.
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Result<Self> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).context("no pseudo terminal")?;
        let copy = |end: &OwnedFd| end.try_clone().map(Stdio::from);
        command.env("TERM", "xterm-256color");
        command.stdin(copy(&pair.slave)?).stdout(copy(&pair.slave)?).stderr(copy(&pair.slave)?);
        let program = command.spawn().with_context(|| format!("{command:?} cannot be started"))?;
        drop(pair.slave);
        let keyboard = File::from(pair.master);
        let mut output = keyboard.try_clone()?;
        let some = |count| NonZero::new(count).context("a terminal has rows and columns");
        let screen = Arc::new(Mutex::new(Parser::new(some(rows)?, some(columns)?, 0)));
        let seen = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error is the end of the program.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                lock(&seen).process(bytes.get(..count).unwrap_or_default());
            }
        });
        Ok(Self { program, keyboard, screen })
    }

    /// What is on the screen.
    #[must_use]
    pub fn text(&self) -> String {
        lock(&self.screen).screen().contents()
    }

    /// Whether the program has the whole screen for itself.
    #[must_use]
    pub fn is_full_screen(&self) -> bool {
        lock(&self.screen).screen().alternate_screen()
    }

    /// Waits until the screen is as it should be, and returns its text.
    ///
    /// # Errors
    ///
    /// If it is not in time; with what is on it.
    pub fn wait_until(
        &self,
        what: &str,
        patience: Duration,
        mut holds: impl FnMut(&str) -> bool,
    ) -> Result<String> {
        let begin = Instant::now();
        loop {
            let text = self.text();
            if holds(&text) {
                return Ok(text);
            }
            ensure!(begin.elapsed() < patience, "not within {patience:?}: {what}\n{text}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types something.
    ///
    /// # Errors
    ///
    /// If the terminal is gone.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    /// Waits until the program ends.
    ///
    /// # Errors
    ///
    /// If it does not in time.
    pub fn wait_exit(&mut self, patience: Duration) -> Result<ExitStatus> {
        wait(&mut self.program, patience)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.program.kill());
        drop(self.program.wait());
    }
}
