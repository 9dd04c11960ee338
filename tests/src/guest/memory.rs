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

/// Writes the memory disk that loads modules and then does what `then` says in the words of
/// a shell. It holds these programs, by their names.
pub(super) fn write(
    kernel: &Kernel,
    modules: &[PathBuf],
    then: &str,
    programs: &[(&str, &Path)],
    archive: &Path,
) -> Result<()> {
    let tree = tempfile::tempdir()?;
    let root = tree.path();
    let mount_point = MOUNT_POINT.trim_start_matches('/');
    for directory in ["bin", "dev", "proc", "sys", "tmp", "modules", mount_point] {
        fs::create_dir(root.join(directory))?;
    }
    let busybox = kernel.busybox()?;
    fs::copy(&busybox, root.join("bin/busybox")).context("cannot copy busybox")?;
    for name in ["sh", "ip"] {
        symlink("busybox", root.join("bin").join(name))?;
    }
    let mut init = "#!/bin/sh\nbb=/bin/busybox\n$bb mount -t devtmpfs dev /dev\n\
                    $bb mount -t proc proc /proc\n$bb mount -t sysfs sys /sys\n"
        .to_owned();
    for module in modules {
        let name = module.file_name().context("a module without a name")?;
        fs::copy(module, root.join("modules").join(name))?;
        writeln!(init, "$bb insmod /modules/{}", name.display())?;
    }
    for (name, program) in programs {
        copy_program(program, &root.join("bin").join(name), root)?;
    }
    writeln!(init, "{then}")?;
    fs::write(root.join("init"), init)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let status = Command::new("sh")
        .arg("-c")
        .arg("cd \"$1\" && find . | \"$2\" cpio -o -H newc > \"$3\" 2>/dev/null")
        .arg("sh")
        .args([root, &busybox, archive])
        .status()?;
    ensure!(status.success(), "busybox cpio failed: {status}");
    Ok(())
}

/// A program, without what only a debugger wants, and the libraries it needs.
fn copy_program(program: &Path, target: &Path, root: &Path) -> Result<()> {
    let status = Command::new("objcopy").arg("--strip-all").args([program, target]).status();
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
