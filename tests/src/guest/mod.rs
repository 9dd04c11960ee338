//! A machine of its own, whose power can be cut.
//!
//! qemu emulates one with a Debian kernel, a memory disk that holds one program, and
//! a real ext4 file system on a raw image. The program works on that and reports on
//! the serial console. When qemu is killed, what the guest had not yet handed to
//! its disk is gone, as when the power fails. The image can then be mounted here.
//!
//! The program is an ordinary one: the libraries that it needs are put beside it.
//! Or it is a whole system with systemd, below a directory that this machine shares with it,
//! in the place of a lab's edge host.
//!
//! No acceleration is asked for, because it is often not to be had; a guest starts
//! in some seconds all the same.
//!
//! # When things fail
//!
//! Every wait has an end, and tells what the guest's console showed. qemu ends with
//! its [`Guest`], a mount with its [`Mounted`].

mod disk;
mod kernel;
mod memory;

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

pub use self::{
    disk::{Disk, Mounted},
    kernel::Kernel,
};
use crate::lab::Lab;

/// Where the guest's program finds its disk.
pub const MOUNT_POINT: &str = "/disk";
/// The name of a guest's program in it.
const PROGRAM: &str = "program";
const QEMU: &str = "qemu-system-x86_64";

/// The program, which ends with who started it, however that ends.
fn qemu() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", QEMU]);
    command
}

/// A machine that runs.
pub struct Guest {
    qemu: Child,
    lines: Receiver<String>,
    /// What the console showed last, for errors.
    shown: Vec<String>,
}

impl Guest {
    /// Starts a machine with this kernel and disk, whose only program is this one.
    ///
    /// # Errors
    ///
    /// If something that it needs is not there.
    pub fn start(
        kernel: &Kernel,
        disk: &Disk,
        program: &Path,
        arguments: &[&str],
        scratch: &Path,
    ) -> Result<Self> {
        let prepare = format!("$bb mount -t ext4 /dev/vda {MOUNT_POINT} || exit");
        let memory = scratch.join("memory-disk");
        let then = run(&prepare, arguments);
        let programs = [(PROGRAM, program)];
        memory::write(kernel, &kernel.disk_modules()?, &then, &programs, &memory)?;
        // The host's memory keeps what the guest has written, as a disk's would that
        // heeds a flush.
        let drive = format!("file={},format=raw,if=virtio,cache=writeback", disk.path().display());
        Self::power_on(qemu(), kernel, &memory, &["-drive", &drive], scratch)
    }

    /// Starts a machine with this kernel and without a disk, which runs this program; others
    /// lie beside it, and it is told where the agent would be. It can make pairs of interfaces, and has a BPF file system.
    ///
    /// # Errors
    ///
    /// If something that it needs is not there.
    pub fn start_without_disk(
        kernel: &Kernel,
        program: &Path,
        arguments: &[&str],
        beside: &[PathBuf],
        scratch: &Path,
    ) -> Result<Self> {
        let prepare = "$bb mount -t bpf bpf /sys/fs/bpf; $bb mount -t tmpfs tmp /tmp\n\
                       export EXOGATE_BIN=/bin/exogate";
        let memory = scratch.join("memory-disk");
        let then = run(prepare, arguments);
        let mut programs = vec![(PROGRAM, program)];
        for other in beside {
            let name = other.file_name().and_then(|name| name.to_str());
            programs.push((name.context("a program without a name")?, other));
        }
        memory::write(kernel, &kernel.link_modules()?, &then, &programs, &memory)?;
        Self::power_on(qemu(), kernel, &memory, &[], scratch)
    }

    /// Starts a machine in the edge host's place, which boots the system below a directory
    /// of this machine with systemd, into a target that tells on the console how far it is.
    ///
    /// # Errors
    ///
    /// If something that it needs is not there.
    pub fn start_as_edge(
        lab: &Lab,
        kernel: &Kernel,
        system: &Path,
        target: &str,
        scratch: &Path,
    ) -> Result<Self> {
        let then = format!(
            "$bb mkdir /system\n\
             $bb mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=262144 \
             system /system || $bb poweroff -f\n\
             $bb mount --move /dev /system/dev\n$bb mount -t tmpfs tmp /system/tmp\n\
             exec $bb switch_root /system /lib/systemd/systemd \
             --unit={target} --show-status=no --log-target=journal"
        );
        let memory = scratch.join("memory-disk");
        memory::write(kernel, &kernel.system_modules()?, &then, &[], &memory)?;
        let share = format!(
            "local,path={},mount_tag=system,security_model=passthrough,multidevs=remap",
            system.display()
        );
        let card = Lab::guest_card();
        let mut more = vec!["-virtfs", &share];
        more.extend(card.iter().map(String::as_str));
        Self::power_on(lab.wan().command(QEMU), kernel, &memory, &more, scratch)
    }

    fn power_on(
        mut qemu: Command,
        kernel: &Kernel,
        memory: &Path,
        more: &[&str],
        scratch: &Path,
    ) -> Result<Self> {
        qemu.args(["-machine", "q35", "-cpu", "max", "-m", "768", "-smp", "2"])
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"])
            .arg("-kernel")
            .arg(kernel.image()?)
            .arg("-initrd")
            .arg(memory)
            // On a busy host the clock of an emulated machine is late now and then; a
            // kernel that tests it would give up.
            .args(["-append", "console=ttyS0 quiet panic=-1 no_timer_check"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(scratch.join("qemu.log"))?);
        let mut qemu = qemu
            .spawn()
            .context("cannot start qemu-system-x86_64; `cargo xtask setup` installs it")?;
        let console = qemu.stdout.take().context("qemu has no console")?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            // A line without its end was cut off, and says nothing.
            let mut console = BufReader::new(console);
            let mut line = Vec::new();
            while console.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                if line.last() == Some(&b'\n') {
                    let text = String::from_utf8_lossy(&line).trim().to_owned();
                    if sender.send(text).is_err() {
                        return;
                    }
                }
                line.clear();
            }
        });
        Ok(Self { qemu, lines, shown: Vec::new() })
    }

    /// The next line of the console; none when the machine is off.
    ///
    /// # Errors
    ///
    /// If there is none in time.
    pub fn line(&mut self, patience: Duration) -> Result<Option<String>> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => {
                self.shown.push(line.clone());
                if self.shown.len() > 50 {
                    self.shown.remove(0);
                }
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the guest said nothing for {patience:?}; before:\n{}", self.shown.join("\n"))
            }
        }
    }

    /// Waits for a line that begins so.
    ///
    /// # Errors
    ///
    /// If it does not come in time.
    pub fn wait_for(&mut self, beginning: &str, patience: Duration) -> Result<String> {
        let begun = Instant::now();
        loop {
            let rest = patience.saturating_sub(begun.elapsed());
            match self.line(rest).with_context(|| format!("waiting for {beginning:?}"))? {
                Some(line) if line.starts_with(beginning) => return Ok(line),
                Some(_) => {}
                None => bail!(
                    "the guest ended before it said {beginning:?}:\n{}",
                    self.shown.join("\n")
                ),
            }
        }
    }

    /// Cuts the power.
    ///
    /// # Errors
    ///
    /// If qemu cannot be killed.
    pub fn cut(&mut self) -> Result<()> {
        self.qemu.kill().context("cannot kill qemu")?;
        self.qemu.wait().context("cannot wait for qemu")?;
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.cut();
    }
}

/// The words of a shell that prepare the guest and run its only program.
fn run(prepare: &str, arguments: &[&str]) -> String {
    format!(
        "{prepare}\nexport PATH=/bin\n/bin/{PROGRAM} {}\n\
         $bb echo ended with $?\n$bb poweroff -f",
        arguments.join(" ")
    )
}
