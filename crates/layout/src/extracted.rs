//! Where the layers of an image are that `unpack` has extracted: below a store, by diffID, by the chain of layers that one
//! depends on, and those that describe the directories of lower ones.

use std::path::{Path, PathBuf};

use crate::sha256;

/// The directories that a store has layers in.
pub const KINDS: [&str; 4] = ["sha256", "sha512", "chains", "parents"];

/// Returns the name of what depends on all layers with these diffIDs.
pub fn key<S: AsRef<str>>(diff_ids: &[S]) -> String {
    let names: Vec<&str> = diff_ids.iter().map(AsRef::as_ref).collect();
    sha256(names.join(" ").as_bytes()).as_ref().replace(':', "-")
}

/// Returns all the directories that may have been made for an image with these diffIDs, the lowest first.
pub fn of_image<S: AsRef<str>>(store: &Path, diff_ids: &[S]) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = diff_ids.iter().map(|id| store.join(id.as_ref().replacen(':', "/", 1))).collect();
    paths.extend((1..=diff_ids.len()).map(|count| store.join("chains").join(key(&diff_ids[..count]))));
    paths.push(store.join("parents").join(key(diff_ids)));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_images_layers_are_named_by_what_they_depend_on() {
        let ids = ["sha256:aa".to_owned(), "sha512:bb".to_owned()];
        let [one, both] =
            ["sha256:aa", "sha256:aa sha512:bb"].map(|names| sha256(names.as_bytes()).as_ref().replace(':', "-"));
        let want =
            ["sha256/aa", "sha512/bb", &format!("chains/{one}"), &format!("chains/{both}"), &format!("parents/{both}")];
        assert_eq!(of_image(Path::new("/d"), &ids), want.map(|path| Path::new("/d").join(path)));
    }
}
