//! The memory disk that a guest starts from.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{Kernel, MOUNT_POINT};

/// Writes the memory disk whose program works on the guest's disk.
pub(super) fn write(
    kernel: &Kernel,
    program: &Path,
    arguments: &[&str],
    archive: &Path,
) -> Result<()> {
    let tree = tempfile::tempdir()?;
    let root = tree.path();
    let mount_point = MOUNT_POINT.trim_start_matches('/');
    for directory in ["bin", "dev", "proc", "sys", "modules", mount_point] {
        fs::create_dir(root.join(directory))?;
    }
    fs::copy(kernel.busybox(), root.join("bin/busybox")).context("no busybox was unpacked")?;
    symlink("busybox", root.join("bin/sh"))?;
    let mut init = "#!/bin/sh\nbb=/bin/busybox\n$bb mount -t devtmpfs dev /dev\n\
                    $bb mount -t proc proc /proc\n$bb mount -t sysfs sys /sys\n"
        .to_owned();
    for module in kernel.modules()? {
        let name = module.file_name().context("a module without a name")?;
        fs::copy(&module, root.join("modules").join(name))?;
        writeln!(init, "$bb insmod /modules/{}", name.display())?;
    }
    copy_program(program, root)?;
    writeln!(
        init,
        "$bb mount -t ext4 /dev/vda {MOUNT_POINT} && /bin/program {}\n\
         $bb echo ended with $?\n$bb poweroff -f",
        arguments.join(" ")
    )?;
    fs::write(root.join("init"), init)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let status = Command::new("sh")
        .arg("-c")
        .arg("cd \"$1\" && find . | \"$2\" cpio -o -H newc > \"$3\" 2>/dev/null")
        .arg("sh")
        .args([root, &kernel.busybox(), archive])
        .status()?;
    ensure!(status.success(), "busybox cpio failed: {status}");
    Ok(())
}

/// A program, without what only a debugger wants, and the libraries it needs.
fn copy_program(program: &Path, root: &Path) -> Result<()> {
    let target = root.join("bin/program");
    let status = Command::new("objcopy").arg("--strip-all").args([program, &target]).status();
    ensure!(status.context("cannot start objcopy")?.success(), "objcopy failed");
    let output = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    for line in String::from_utf8(output.stdout)?.lines() {
        // `libc.so.6 => /lib/libc.so.6 (0x...)` or `/lib64/ld-linux.so.2 (0x...)`
        let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) else {
            continue;
        };
        let target = root.join(PathBuf::from(library).strip_prefix("/")?);
        fs::create_dir_all(target.parent().context("a library without a directory")?)?;
        fs::copy(library, &target).with_context(|| format!("cannot copy {library}"))?;
    }
    Ok(())
}
