//! Files: a Landlock ruleset that allows what the tool's task is about.

use std::path::Path;

use anyhow::{Context, Result};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope,
};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

/// Gives up the other files, as far as the kernel knows them, and says what was given up.
pub(crate) fn restrict(writes: &[&Path], reads: Option<&[&Path]>) -> Result<&'static str> {
    let reading = if reads.is_some() { AccessFs::ReadFile | AccessFs::ReadDir } else { BitFlags::EMPTY };
    // Up to version 3, which has truncation; what newer kernels know beside it is about devices, sockets and signals.
    let writing = AccessFs::from_write(ABI::V3);
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    // The first version refuses to rename between directories.
    let Ok(ruleset) = ruleset.handle_access(AccessFs::Refer) else {
        return Ok("no files: this kernel has no Landlock for it");
    };
    let ruleset = ruleset.set_compatibility(CompatLevel::BestEffort);
    let ruleset = ruleset.handle_access(writing | reading | AccessFs::Execute)?.scope(Scope::from_all(ABI::V6))?;
    let mut ruleset = ruleset.create().context("make a ruleset")?;
    let readable = reads.unwrap_or_default().iter().map(|path| (path, reading));
    for (path, rights) in writes.iter().map(|path| (path, writing | reading)).chain(readable) {
        let opened = open(*path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        // What is not there is not missed: whoever needs it says so.
        let below = sys::unless(&[Errno::NOENT, Errno::NOTDIR, Errno::ACCESS], opened);
        let Some(below) = below.with_context(|| path.display().to_string())? else { continue };
        ruleset = ruleset.add_rule(PathBeneath::new(below, rights)).with_context(|| path.display().to_string())?;
    }
    // It sets no_new_privs as well, which landlock_restrict_self(2) asks for. Files that are open stay open.
    ruleset.restrict_self()?;
    Ok(if reads.is_some() { "files but its own" } else { "files to write but its own" })
}
