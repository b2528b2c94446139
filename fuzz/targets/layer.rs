//! Layers into trees: whatever the layer says, what lies beside the tree stays as it is. The archive is applied in each form
//! twice, over itself, as the layers of an image are.

#![no_main]
#![allow(dead_code, unused_imports, reason = "the tool's own modules, of which this uses a part")]

#[path = "../src/checksum.rs"]
mod checksum;

#[path = "../../tools/unpack/src"]
mod unpack {
    pub(crate) mod entry;
    pub(crate) mod form;
    pub(crate) mod interrupt;
    pub(crate) mod layer;
    pub(crate) mod lock;
    pub(crate) mod lower;
    pub(crate) mod node;
    pub(crate) mod overlay;
    pub(crate) mod parents;
    pub(crate) mod path;
    pub(crate) mod stream;
    pub(crate) mod tree;
    pub(crate) mod xattr;
}

use std::fs::{self, DirBuilder, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::sync::OnceLock;

use form::Form;
use libfuzzer_sys::fuzz_target;
use stream::Limits;
// The modules know each other by these paths.
use unpack::{entry, form, interrupt, layer, lock, lower, node, overlay, parents, path, stream, tree, xattr};

/// A directory of the process's own, with the victim in it that the seeds' paths lead to.
fn place() -> &'static Path {
    static PLACE: OnceLock<std::path::PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = std::env::temp_dir().join(format!("fuzz-layer-{}", std::process::id()));
        DirBuilder::new().recursive(true).mode(0o755).create(place.join("victim")).expect("make a directory");
        fs::write(place.join("victim/keep"), "keep\n").expect("write a file");
        place
    })
}

/// What an escape would change.
fn victim() -> impl PartialEq + std::fmt::Debug {
    let names = |path: &Path| {
        let names = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let of = |path: &str| {
        let stat = fs::symlink_metadata(place().join(path)).expect("it is there");
        (stat.mode(), stat.uid(), stat.nlink(), stat.mtime(), stat.mtime_nsec())
    };
    (
        of("victim"),
        of("victim/keep"),
        names(place()),
        names(&place().join("victim")),
        fs::read(place().join("victim/keep")).ok(),
    )
}

fn apply(archive: &[u8], root: &Path, form: Form) {
    let limits = Limits::new(1 << 20, 1000);
    let root = File::open(root).expect("it was made");
    let mut tree = tree::Tree::new(root.into(), form, &limits, None);
    if layer::apply(&mut archive::Archive::new(archive), &mut tree, &limits).is_ok() {
        let _times_may_be_impossible = tree.finish();
    }
}

fuzz_target!(|bytes: &[u8]| {
    let archive = checksum::mended(bytes);
    let root = place().join("root");
    let before = {
        DirBuilder::new().mode(0o700).create(&root).expect("it was removed");
        victim()
    };
    for form in [Form::Flat, Form::Overlay { user_xattrs: true }] {
        for _ in 0..2 {
            apply(&archive, &root, form);
        }
        assert_eq!(victim(), before);
        let parent = File::open(place()).expect("it is there");
        root::remove(parent.as_fd(), c"root").expect("remove the tree");
        DirBuilder::new().mode(0o700).create(&root).expect("it was removed");
    }
    fs::remove_dir(&root).expect("it is empty");
});
