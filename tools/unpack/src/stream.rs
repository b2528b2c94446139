//! A layer's tar stream out of its blob. Inflating runs in a thread of its own, a bounded number of buffers ahead of
//! whoever takes them, and the buffers go round; the stream's digest, the diffID, is computed on the way.
//!
//! The digest is computed in the thread that takes the buffers: inflating is the slowest part, and has its processor
//! alone.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};

use anyhow::ensure;
use layout::{Compression, Digester};
use oci_spec::image::Digest;

/// Large enough that passing a buffer on costs nothing, small enough that it is still in the cache when it is taken.
const BUFFER: usize = 128 << 10;

/// How many buffers one layer has.
const BUFFERS: usize = 8;

/// How much is read of a blob at once.
const BLOB_BUFFER: usize = 64 << 10;

/// What all layers of one image may have together; counted as they are extracted.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) size: u64,
    pub(crate) entries: u64,
    /// Both counters are shared by the threads of all layers; their order does not matter, so `Relaxed` is enough.
    used_size: AtomicU64,
    used_entries: AtomicU64,
}

impl Limits {
    pub(crate) fn new(size: u64, entries: u64) -> Self {
        Self { size, entries, used_size: AtomicU64::new(0), used_entries: AtomicU64::new(0) }
    }

    fn add_size(&self, count: usize) -> io::Result<()> {
        let used = self.used_size.fetch_add(count as u64, Ordering::Relaxed) + count as u64;
        if used <= self.size {
            return Ok(());
        }
        Err(io::Error::other(format!("image has more than {} bytes uncompressed (--max-size)", self.size)))
    }

    /// Counts one entry.
    pub(crate) fn add_entry(&self) -> anyhow::Result<()> {
        let used = self.used_entries.fetch_add(1, Ordering::Relaxed) + 1;
        ensure!(used <= self.entries, "image has more than {} entries (--max-entries)", self.entries);
        Ok(())
    }
}

/// The tar stream of one layer.
pub(crate) struct LayerStream {
    /// Filled buffers; an empty one is the end.
    full: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    buffer: Vec<u8>,
    position: usize,
    ended: bool,
    digester: Digester,
    limits: Arc<Limits>,
}

impl LayerStream {
    /// Starts the thread that reads and inflates `blob`.
    ///
    /// One more thread for each layer at work. It ends by itself when either channel is closed.
    pub(crate) fn start(
        blob: impl Read + Send + 'static,
        compression: Compression,
        diff_id: &Digest,
        limits: Arc<Limits>,
    ) -> anyhow::Result<Self> {
        let (full_sender, full) = mpsc::sync_channel(BUFFERS);
        let (empty, empty_receiver) = mpsc::sync_channel(BUFFERS);
        for _ in 0..BUFFERS {
            empty.send(vec![0; BUFFER])?;
        }
        let inflate = move || {
            let end = inflate(blob, compression, &full_sender, &empty_receiver).map(|()| Vec::new());
            // Nobody listens where the extraction has failed, which is told there.
            let _gone = full_sender.send(end);
        };
        std::thread::Builder::new().name("inflate".to_owned()).spawn(inflate)?;
        Ok(Self {
            full,
            empty,
            buffer: Vec::new(),
            position: 0,
            ended: false,
            digester: Digester::like(diff_id)?,
            limits,
        })
    }

    /// Reads what is behind the archive's end, which the diffID covers too, and compares.
    pub(crate) fn finish(mut self, diff_id: &Digest) -> anyhow::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        let got = self.digester.finish();
        ensure!(got == *diff_id, "its diffID is {got}, not {diff_id} as the config says");
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        let used = std::mem::take(&mut self.buffer);
        if used.capacity() > 0 {
            // The thread is gone where it has met the end.
            let _gone = self.empty.send(used);
        }
        self.position = 0;
        self.buffer = self.full.recv().map_err(|_| io::Error::other("inflating stopped"))??;
        self.ended = self.buffer.is_empty();
        // Of what was inflated: a bomb is stopped after one buffer too much, 128 KiB, whatever the blob's size is.
        self.limits.add_size(self.buffer.len())?;
        self.digester.update(&self.buffer);
        Ok(())
    }
}

impl Read for LayerStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for LayerStream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.buffer.len() && !self.ended {
            self.receive()?;
        }
        Ok(&self.buffer[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

fn inflate(
    blob: impl Read + Send,
    compression: Compression,
    full: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> io::Result<()> {
    let mut decoder = compression.decoder(BufReader::with_capacity(BLOB_BUFFER, blob))?;
    // The channel closes where the extraction has failed.
    while let Ok(mut buffer) = empty.recv() {
        buffer.resize(BUFFER, 0);
        let filled = {
            let _span = trace::span("inflate", "");
            fill(&mut decoder, &mut buffer)?
        };
        buffer.truncate(filled);
        if filled == 0 || full.send(Ok(buffer)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Reads until the buffer is full or the end: decoders return as little as one block, and each buffer passed on
/// costs.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
