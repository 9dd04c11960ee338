//! `cargo xtask doctor`: what this machine would build with, and what is missing.

use crate::{
    packages,
    toolchain::{self, Compiler, Linker, Places},
};
use anyhow::{Result, bail};
use std::env;

/// Prints the choice; fails if anything that a build or test needs is missing.
pub(crate) fn run() -> Result<()> {
    let places = Places::of_this_machine();
    match &places.tools {
        Some(tools) => println!("tools directory   {}", tools.display()),
        None => println!("tools directory   none: neither EXOGATE_TOOLS nor HOME is set"),
    }

    for name in toolchain::ENVIRONMENT {
        if let Some(value) = env::var_os(name) {
            println!("{name:<17} {}", value.display());
        }
    }

    let linker = Linker::find(&places);
    match &linker {
        Ok(linker) => {
            println!("bpf-linker        {} {}", linker.path.display(), linker.version);
            println!("  LLVM            {}", linker.llvm);
        }
        Err(_) => println!("bpf-linker        MISSING"),
    }

    let major = linker.as_ref().ok().and_then(|linker| linker.llvm.major());
    match Compiler::find(&places, major) {
        Ok((compiler, rejected)) => {
            println!("rustc             {} ({})", compiler.path.display(), compiler.origin);
            println!("  version         {}", compiler.version.text);
            println!("  LLVM            {}", compiler.version.llvm);
            match &compiler.llvm_library {
                Some(library) => println!("  LLVM library    {}", library.display()),
                None => println!("  LLVM library    none that is shared"),
            }
            println!("  core            {}", compiler.library_source().display());
            println!("  cargo           {}", compiler.cargo.display());
            for one in rejected {
                println!("  passed over     {one}");
            }
        }
        Err(_) => println!("rustc             MISSING"),
    }

    let programs = [packages::PROGRAMS, packages::TEST_PROGRAMS].concat();
    let missing = packages::missing(&programs);
    for program in &programs {
        let state = if missing.contains(&program) { "MISSING" } else { "found" };
        println!("{:<17} {state}: package {}, {}", program.name, program.package, program.why);
    }

    let toolchain = toolchain::resolve(&places);
    if let Err(error) = toolchain {
        bail!("{error}");
    }
    if !missing.is_empty() {
        bail!("programs are missing; install them with\n  {}", packages::install_line(&missing));
    }
    Ok(())
}
