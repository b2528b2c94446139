//! The programs under test: built once, and reachable by name in one directory.

use std::os::unix::fs::symlink;
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
    let programs: Vec<PathBuf> = text.lines().filter_map(executable).collect();
    let first = programs.first().expect("cargo names the programs it built");
    let directory = first.with_file_name("e2e-bin");
    // Another run of the tests may be using the directory: replace link by link, never the whole.
    std::fs::create_dir_all(&directory).expect("a directory for the programs");
    for program in &programs {
        let link = directory.join(program.file_name().expect("a program has a name"));
        if std::fs::read_link(&link).ok().as_ref() != Some(program) {
            let _ = std::fs::remove_file(&link);
            symlink(program, &link).expect("a link to a program");
        }
    }
    directory
}

/// Reads one of cargo's messages (The Cargo Book, "External tools", JSON messages).
fn executable(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    message.get("executable")?.as_str().map(PathBuf::from)
}
