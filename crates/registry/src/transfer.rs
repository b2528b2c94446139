//! Several transfers at once.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use oci_spec::image::Descriptor;

/// Does something with all blobs, each once, at most `jobs` at a time, in their order. The first failure ends the rest.
pub fn several(
    blobs: &[Descriptor],
    jobs: usize,
    transfer: impl Fn(&Descriptor, &AtomicBool) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    let blobs: Vec<&Descriptor> = blobs.iter().filter(|blob| seen.insert(blob.digest().as_ref())).collect();
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let failed = Mutex::new(None);
    let worker = || {
        while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if let Err(error) = transfer(blob, &stop) {
                stop.store(true, Ordering::Relaxed);
                if let Ok(mut failed) = failed.lock() {
                    failed.get_or_insert_with(|| name(error, blob));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..jobs.min(blobs.len()) {
            // Where there may be no more threads, those that are there do it all: at the least this one.
            if std::thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        worker();
    });
    failed.into_inner().ok().flatten().map_or(Ok(()), Err)
}

/// Names the blob in an error that does not do so itself.
fn name(error: anyhow::Error, blob: &Descriptor) -> anyhow::Error {
    let digest = blob.digest().as_ref();
    if format!("{error:#}").contains(digest) { error } else { error.context(format!("blob {digest}")) }
}
