//! Every shell block of docs/recipes.md, executed as it stands there.

use std::time::Duration;

use crate::book::{blocks, name_images};
use crate::support::{Need, Sandbox, Test, source, test};

const NEEDS: &[Need] =
    &[Need::Registry, Need::NetNs, Need::Overlay, Need::Nft, Need::Program("curl"), Need::Program("jq")];

pub(crate) fn tests() -> Vec<Test> {
    let text = std::fs::read_to_string(source().join("docs/recipes.md")).unwrap_or_default();
    recipes(&text).into_iter().map(|(name, script)| test(&name, NEEDS, move |it| perform(it, &script))).collect()
}

fn perform(sandbox: &Sandbox, script: &str) {
    name_images(sandbox);
    // With -e a recipe fails where a command of it fails; -x shows which.
    sandbox.cmd(&["sh", "-exuc", script]).limit(Duration::from_secs(150)).run().ok();
}

/// Finds the blocks marked `sh`; each is named after the heading above it.
fn recipes(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::<(String, String)>::new();
    for block in blocks(text).into_iter().filter(|block| block.language == "sh") {
        let heading = block.heading.to_lowercase().replace(|character: char| !character.is_ascii_alphanumeric(), "_");
        let number = found.iter().filter(|(name, _)| name.starts_with(&heading)).count();
        let suffix = if number == 0 { String::new() } else { format!("_{}", number + 1) };
        found.push((format!("{heading}{suffix}"), block.text));
    }
    found
}
