//! Tells the tests which compiler has built the programs: `costs::` holds their costs to those of one.

use std::process::Command;

fn main() {
    let rustc = std::env::var_os("RUSTC").expect("cargo names the compiler");
    let version = Command::new(rustc).arg("--version").output().expect("the compiler tells its version").stdout;
    let version = String::from_utf8_lossy(&version);
    println!("cargo:rustc-env=COMPILER={} {}", version.split(' ').nth(1).unwrap_or_default(), std::env::consts::ARCH);
    println!("cargo:rerun-if-changed=build.rs");
}
