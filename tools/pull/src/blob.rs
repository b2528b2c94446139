//! Bringing blobs: several at once, each resumed, retried and checked until it is right or hopeless.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::anyhow;
use layout::{Ingest, Layout};
use oci_spec::image::Descriptor;

use crate::progress::{Meter, Progress};
use crate::registry::{Failure, Retries};
use crate::source::Source;

/// Piece size of a transfer. Bytes.
const PIECE: usize = 128 << 10;
/// So much more than at the last failure is progress, and failures are counted anew. Bytes.
const PROGRESS: u64 = 256 << 10;

/// Brings all blobs into the layout, at most `jobs` at a time, in their order. The first failure ends the rest.
pub(crate) fn fetch_all(
    source: &Source,
    layout: &Layout,
    blobs: &[Descriptor],
    jobs: usize,
    progress: &Progress,
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
            if let Err(error) = fetch(source, layout, blob, progress, &stop) {
                stop.store(true, Ordering::Relaxed);
                if let Ok(mut failed) = failed.lock() {
                    failed.get_or_insert_with(|| name(error, blob));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..jobs.min(blobs.len()) {
            scope.spawn(worker);
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

fn fetch(
    source: &Source,
    layout: &Layout,
    blob: &Descriptor,
    progress: &Progress,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut meter = progress.blob(blob);
    if layout.has(blob) {
        meter.present();
        return Ok(());
    }
    let Some(mut ingest) = layout.ingest(blob)? else {
        meter.present();
        return Ok(());
    };
    // What an earlier run left may be wrong without this registry's fault.
    let mut chances = if ingest.offset() > 0 { 2 } else { 1 };
    meter.resume(ingest.offset());
    loop {
        if let Err(error) = transfer(source, &mut ingest, &mut meter, stop) {
            if ingest.offset() == 0 {
                ingest.discard();
            }
            return Err(error);
        }
        match ingest.commit() {
            Ok(()) => {
                meter.done();
                return Ok(());
            }
            Err(error @ layout::Error::Digest { .. }) if chances > 0 => {
                chances -= 1;
                log::debug!("fetch it again: {error}");
                ingest.restart()?;
                meter.resume(0);
            }
            Err(error @ layout::Error::Digest { .. }) => {
                ingest.discard();
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Brings what is missing of a blob, in as many requests as it takes.
fn transfer(source: &Source, ingest: &mut Ingest, meter: &mut Meter, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut retries = Retries::new(source.patience());
    let mut reached = ingest.offset();
    while !ingest.is_whole() {
        let Err(failure) = attempt(source, ingest, meter, stop) else { continue };
        if stop.load(Ordering::Relaxed) {
            return Err(failure.into_error());
        }
        if ingest.offset() >= reached.saturating_add(PROGRESS.min(ingest.descriptor().size() / 64))
            && ingest.offset() > reached
        {
            reached = ingest.offset();
            retries.reset();
        }
        retries.pause(failure)?;
    }
    Ok(())
}

fn attempt(source: &Source, ingest: &mut Ingest, meter: &mut Meter, stop: &AtomicBool) -> Result<(), Failure> {
    let body = source.blob(ingest.descriptor(), ingest.offset())?;
    let mut skip = ingest.offset() - body.start.min(ingest.offset());
    let mut reader = body.reader;
    let mut piece = vec![0; PIECE];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::Final(anyhow!("another blob failed")));
        }
        let count = match reader.read(&mut piece) {
            Ok(0) if ingest.is_whole() => return Ok(()),
            Ok(0) => return Err(Failure::Passing(anyhow!("the connection ended early"), None)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // The last bytes are there: how the connection ends is nobody's concern.
            Err(_) if ingest.is_whole() => return Ok(()),
            Err(error) => return Err(interrupted(error)),
        };
        // A registry that knows no ranges sends again what is there.
        let known = usize::try_from(skip).unwrap_or(usize::MAX).min(count);
        skip -= known as u64;
        ingest.write(&piece[known..count]).map_err(|error| Failure::Final(error.into()))?;
        meter.advance((count - known) as u64);
    }
}

fn interrupted(error: io::Error) -> Failure {
    let timeout = error.kind() == io::ErrorKind::TimedOut || error.to_string().starts_with("timeout");
    let error = anyhow::Error::from(error);
    Failure::Passing(if timeout { anyhow!("no data in time") } else { error.context("read") }, None)
}
