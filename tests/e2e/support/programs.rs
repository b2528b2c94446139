//! The programs under test: built once, and reachable by name in one directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Returns the directory that holds the programs. `BIN_DIR=` names one that is ready (an installation, or what `make`
/// built as another user); else the workspace is built, because nothing else guarantees that the binaries of other
/// packages are not stale.
pub(crate) fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| match std::env::var_os("BIN_DIR") {
        Some(directory) => std::path::absolute(directory).expect("an absolute BIN_DIR"),
        None => build(),
    })
}

/// Returns the root of the source tree.
pub(crate) fn source() -> &'static Path {
    static SOURCE: OnceLock<PathBuf> = OnceLock::new();
    SOURCE.get_or_init(|| {
        std::env::var_os("DRAYAGE_SOURCE").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the tree").to_owned(),
            PathBuf::from,
        )
    })
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    eprintln!("building the programs");
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--workspace", "--bins", "--message-format=json"])
        .current_dir(source())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "the programs do not build");
    let text = String::from_utf8_lossy(&output.stdout);
    let program = text.lines().find_map(executable).expect("cargo names the programs it built");
    program.parent().expect("a program is in a directory").to_owned()
}

/// Reads one of cargo's messages (The Cargo Book, "External tools", JSON messages).
fn executable(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    message.get("executable")?.as_str().map(PathBuf::from)
}
