//! Layers that are damaged at random, into trees with something beside them that none may touch.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use super::*;
use crate::form::Form;
use crate::interrupt;
use damage::{Random, corpus, damage};

#[path = "../../../../crates/archive/src/tests/damage.rs"]
mod damage;

/// What an escape would change. The seeds' links lead to `victim` beside the tree.
fn outside(directory: &Path) -> impl PartialEq + std::fmt::Debug {
    let names =
        |path: &Path| -> BTreeSet<_> { fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect() };
    let of = |path: &str| {
        let stat = fs::symlink_metadata(directory.join(path)).unwrap();
        (stat.mode(), stat.uid(), stat.nlink(), stat.mtime(), stat.mtime_nsec())
    };
    let victim = directory.join("victim");
    (of("victim"), of("victim/keep"), names(directory), names(&victim), fs::read(victim.join("keep")).unwrap())
}

#[test]
fn damaged_layers_stay_in_their_tree() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir(directory.path().join("victim")).unwrap();
    fs::write(directory.path().join("victim/keep"), "keep\n").unwrap();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut whole = 0;
    for seed in corpus() {
        for form in [Form::Flat, Form::Overlay { user_xattrs: true }] {
            DirBuilder::new().mode(0o700).create(&root).unwrap();
            let before = outside(directory.path());
            // Over each other, as layers are.
            for archive in [seed.clone(), damage(&seed, &mut random), damage(&seed, &mut random)] {
                let limits = Limits::new(1 << 20, 1000);
                let mut tree = Tree::new(File::open(&root).unwrap().into(), form, &limits, None);
                let applied = apply(&mut Archive::new(archive.as_slice()), &mut tree, &limits);
                whole += usize::from(applied.and_then(|_| tree.finish()).is_ok());
            }
            assert_eq!(outside(directory.path()), before);
            interrupt::remove_tree(&root);
            assert!(!root.exists());
        }
    }
    // An ordinary user may give nothing away.
    assert!(whole > 100 || !rustix::process::geteuid().is_root(), "{whole} of them could be applied");
}
