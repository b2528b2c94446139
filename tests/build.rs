//! Tells the tests which compiler has built the programs: `costs::` holds their costs to those of one.

use std::error::Error;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let version = Command::new(std::env::var("RUSTC")?).arg("--version").output()?.stdout;
    let version = String::from_utf8(version)?;
    println!("cargo:rustc-env=COMPILER={} {}", version.split(' ').nth(1).unwrap_or_default(), std::env::consts::ARCH);
    println!("cargo:rerun-if-changed=build.rs");
    Ok(())
}
