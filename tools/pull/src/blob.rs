//! Bringing blobs: several at once, each resumed, retried and checked until it is right or hopeless.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::anyhow;
use layout::{Ingest, Layout};
use oci_spec::image::Descriptor;
use registry::progress::{Meter, Progress};
use registry::{Failure, Retries};

use crate::source::Opened;

/// Piece size of a transfer. Bytes.
const PIECE: usize = 128 << 10;
/// So much more than at the last failure is progress, and failures are counted anew. Bytes.
const PROGRESS: u64 = 256 << 10;

/// Brings all blobs into the layout, at most `jobs` at a time, in their order. The first failure ends the rest.
pub(crate) fn fetch_all(
    source: &Opened,
    layout: &Layout,
    blobs: &[Descriptor],
    jobs: usize,
    progress: &Progress,
) -> anyhow::Result<()> {
    registry::several(blobs, jobs, |blob, stop| fetch(source, layout, blob, progress, stop))
}

fn fetch(
    source: &Opened,
    layout: &Layout,
    blob: &Descriptor,
    progress: &Progress,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut meter = progress.blob(blob);
    let ingest = if layout.has(blob) { None } else { layout.ingest(blob)? };
    let Some(mut ingest) = ingest else {
        meter.present();
        return Ok(());
    };
    let mut place = source.first_place();
    loop {
        let Err(failure) = bring(&Origin { source, place }, &mut ingest, &mut meter, stop) else {
            meter.done();
            return Ok(());
        };
        // It may be that nothing else comes from there either.
        let broken = matches!(failure, Failure::Passing(..));
        let error = failure.into_error();
        let wrong = matches!(error.downcast_ref(), Some(layout::Error::Digest { .. }));
        let next = if stop.load(Ordering::Relaxed) { None } else { source.next_place(place, broken, &error) };
        let Some(next) = next else {
            if wrong || ingest.offset() == 0 {
                ingest.discard();
            }
            return Err(error);
        };
        if wrong {
            ingest.restart()?;
            meter.resume(0);
        }
        place = next;
    }
}

/// One of the places that a source has.
struct Origin<'a> {
    source: &'a Opened<'a>,
    place: usize,
}

/// Brings a blob from one place: once more if it came wrong.
fn bring(origin: &Origin, ingest: &mut Ingest, meter: &mut Meter, stop: &AtomicBool) -> Result<(), Failure> {
    // What an earlier run or place left may be wrong without this registry's fault.
    let mut chances = if ingest.offset() > 0 { 2 } else { 1 };
    meter.resume(ingest.offset());
    loop {
        transfer(origin, ingest, meter, stop)?;
        match ingest.commit() {
            Err(error @ layout::Error::Digest { .. }) if chances > 0 => {
                chances -= 1;
                log::debug!("fetch it again: {error}");
                ingest.restart()?;
                meter.resume(0);
            }
            done => return Ok(done?),
        }
    }
}

/// Brings what is missing of a blob, in as many requests as it takes.
fn transfer(origin: &Origin, ingest: &mut Ingest, meter: &mut Meter, stop: &AtomicBool) -> Result<(), Failure> {
    let mut retries = Retries::new(origin.source.patience());
    let mut reached = ingest.offset();
    while !ingest.is_whole() {
        // What breaks down each time may do so because of the range.
        let offset = if retries.is_last() { 0 } else { ingest.offset() };
        let Err(failure) = attempt(origin, ingest, offset, (meter, stop)) else { continue };
        if stop.load(Ordering::Relaxed) {
            return Err(failure);
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

fn attempt(
    origin: &Origin,
    ingest: &mut Ingest,
    offset: u64,
    (meter, stop): (&mut Meter, &AtomicBool),
) -> Result<(), Failure> {
    let _span = trace::span("download", ingest.descriptor().digest());
    let body = origin.source.blob(origin.place, ingest.descriptor(), offset)?;
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
        ingest.write(&piece[known..count])?;
        meter.advance((count - known) as u64);
    }
}

fn interrupted(error: io::Error) -> Failure {
    let timeout = error.kind() == io::ErrorKind::TimedOut || error.to_string().starts_with("timeout");
    let error = anyhow::Error::from(error);
    Failure::Passing(if timeout { anyhow!("no data in time") } else { error.context("read") }, None)
}
