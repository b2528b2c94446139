//! Sending a blob: resumed and retried until the registry has it or it is hopeless.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::anyhow;
use oci_spec::image::Descriptor;
use registry::progress::Meter;
use registry::{Failure, Retries, Upload};

use crate::job::PushJob;

/// Where a blob is sent in pieces. Bytes.
const PIECE: u64 = 16 << 20;

/// How a blob is sent: what is refused one way is sent another, plainer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// As docker does it: by one PATCH.
    Stream,
    /// By several: what stands before a registry may set a limit.
    Pieces,
    /// By nothing but the PUT at the end.
    Put,
}

/// Begins to read a blob.
pub(crate) type Open<'a> = dyn Fn() -> io::Result<Box<dyn Read>> + 'a;

/// A blob while it is read, for as many requests as it takes.
struct Outgoing<'a> {
    open: &'a Open<'a>,
    blob: &'a Descriptor,
    meter: Meter<'a>,
    stop: &'a AtomicBool,
    reader: Option<Box<dyn Read>>,
    position: u64,
    /// Why it cannot be read.
    failed: Option<io::Error>,
}

impl Outgoing<'_> {
    /// Turns to an offset. What lies before it is read, too, for the digest.
    fn seek(&mut self, offset: u64) -> Result<(), Failure> {
        let mut seek = || -> io::Result<()> {
            if self.reader.is_none() || self.position > offset {
                (self.reader, self.position) = (Some((self.open)()?), 0);
            }
            if let Some(reader) = &mut self.reader {
                self.position += io::copy(&mut reader.take(offset - self.position), &mut io::sink())?;
            }
            Ok(())
        };
        seek().map_err(|error| Failure::Passing(self.fail(error).into(), None))?;
        self.meter.resume(offset);
        Ok(())
    }

    /// Keeps an error that is not the registry's.
    fn fail(&mut self, error: io::Error) -> io::Error {
        let text = error.to_string();
        self.failed = Some(error);
        io::Error::other(text)
    }
}

impl Read for Outgoing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(reader) = self.reader.as_mut().filter(|_| !self.stop.load(Ordering::Relaxed)) else {
            return Err(io::Error::other("another blob failed"));
        };
        match reader.read(buffer) {
            Ok(count) => {
                self.position += count as u64;
                self.meter.advance(count as u64);
                Ok(count)
            }
            Err(error) => Err(self.fail(error)),
        }
    }
}

impl PushJob<'_> {
    /// Sends a blob, unless the registry has it or takes it from another of its repositories.
    pub(crate) fn upload(&self, blob: &Descriptor, open: &Open<'_>, stop: &AtomicBool) -> anyhow::Result<()> {
        let meter = self.progress.blob(blob);
        let mut outgoing = Outgoing { open, blob, meter, stop, reader: None, position: 0, failed: None };
        let mut retries = Retries::new(self.registry.patience());
        let (mut upload, mut refused, mut reached) = (None, None, None);
        let (mut way, mut plainer) = (Way::Stream, [Way::Pieces, Way::Put].into_iter());
        loop {
            let failure = match self.attempt(&mut outgoing, &mut upload, way) {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if stop.load(Ordering::Relaxed) {
                return Err(failure.into_error());
            }
            if let Some(error) = outgoing.failed.take() {
                // It turned out wrong when it had come, and comes anew.
                if !matches!(layout::Error::find(&error), Some(layout::Error::Replaced(_))) {
                    return Err(error.into());
                }
                (upload, outgoing.reader) = (None, None);
            }
            match failure {
                Failure::Refused(error) if upload.is_some() => {
                    log::debug!("sent as {way:?}: {error:#}");
                    let first = refused.take().unwrap_or(error);
                    let Some(next) = plainer.next() else { return Err(first) };
                    (upload, way, refused) = (None, next, Some(first));
                }
                failure => {
                    let offset = upload.as_ref().map(|upload: &Upload| upload.offset);
                    if offset > reached {
                        reached = offset;
                        retries.reset();
                    }
                    retries.pause(failure).map_err(Failure::into_error)?;
                }
            }
        }
    }

    fn attempt(&self, outgoing: &mut Outgoing<'_>, upload: &mut Option<Upload>, way: Way) -> Result<(), Failure> {
        let (digest, size) = (outgoing.blob.digest(), outgoing.blob.size());
        let _span = trace::span("upload", digest);
        match upload.as_mut().map(|upload| self.registry.resume(upload)) {
            None | Some(Ok(())) => {}
            Some(Err(passing @ Failure::Passing(..))) => return Err(passing),
            Some(Err(gone)) => {
                log::debug!("begin anew: {:#}", gone.into_error());
                *upload = None;
            }
        }
        if upload.is_none() {
            let present = self.registry.has(&format!("blobs/{digest}"))?;
            *upload = if present { None } else { self.begin(outgoing.blob)? };
        }
        let Some(upload) = upload else {
            outgoing.meter.present();
            return Ok(());
        };
        while upload.offset < size && way != Way::Put {
            let (start, left) = (upload.offset, size - upload.offset);
            let length = if way == Way::Pieces { left.min(PIECE) } else { left };
            outgoing.seek(start)?;
            self.registry.send(upload, outgoing.take(length), length, way == Way::Pieces)?;
            if upload.offset <= start {
                return Err(Failure::Passing(anyhow!("the registry takes nothing of it"), None));
            }
        }
        let rest = size.saturating_sub(upload.offset);
        if rest > 0 {
            outgoing.seek(upload.offset)?;
        }
        self.registry.finish(upload, digest, (outgoing.take(rest), rest))?;
        outgoing.meter.done();
        Ok(())
    }

    fn begin(&self, blob: &Descriptor) -> Result<Option<Upload>, Failure> {
        let (known, all) = &self.origins;
        let from = known.get(blob.digest().as_ref()).or(all.as_ref());
        match self.registry.begin(blob.digest(), from.map(String::as_str)) {
            Err(failure @ (Failure::Refused(_) | Failure::Final(_))) if from.is_some() => {
                log::debug!("take it from another repository: {:#}", failure.into_error());
                self.registry.begin(blob.digest(), None)
            }
            begun => begun,
        }
    }
}
