//! What a layer blob is compressed with (image-spec, layer.md, "+gzip Media Types", "+zstd Media Types").

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::str::FromStr;

use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use oci_spec::image::MediaType;

use crate::manifest::essence;

/// The largest window that a zstd stream may ask of us, as a power of two: 128 MiB, as the zstd program has it. Level 19
/// uses 8 MiB.
const WINDOW_LOG_LIMIT: u32 = 27;
/// What comes out is 5 % smaller than what gzip -1 makes, in two thirds of its time; level 6 would give 3 % more for half as much time again.
const GZIP_LEVEL: u32 = 3;
/// One that is larger is told of. Bytes.
const USUAL_WINDOW: u64 = 32 << 20;

/// How a layer's tar archive is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not compressed.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

impl FromStr for Compression {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::Plain),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err("say none, gzip or zstd"),
        }
    }
}

impl Compression {
    /// Returns what the media type says; nothing for what is no layer. Where nothing is said the content decides.
    pub fn of(media_type: &MediaType) -> Option<Self> {
        Some(match essence(media_type.as_ref()) {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "" => Self::Plain,
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Self::Gzip,
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd" => Self::Zstd,
            _ => return None,
        })
    }

    /// Returns what the content's first bytes say. A tar archive begins with a name and cannot look like the others.
    pub fn detect(content: &[u8]) -> Self {
        match content {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// Wraps a blob in its decoder. The content decides: the digest vouches for it, and some registries' media types
    /// have been wrong for years. A difference is told.
    pub fn decoder<'a>(self, mut blob: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        let content = blob.fill_buf()?;
        let found = Self::detect(content);
        if found != self && !content.is_empty() {
            log::warn!("media type says {self}, content is {found}");
        }
        Ok(match found {
            Self::Plain => Box::new(blob),
            Self::Gzip => Box::new(Members(Some(GzDecoder::new(blob)))),
            Self::Zstd => {
                let window = window(content).unwrap_or_default();
                if window > 1 << WINDOW_LOG_LIMIT {
                    return Err(io::Error::other(format!("zstd window of {window} bytes: the limit is 128 MiB")));
                }
                if window > USUAL_WINDOW {
                    log::info!("the layer's zstd window takes {} MiB of memory", window >> 20);
                }
                let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
                decoder.window_log_max(WINDOW_LOG_LIMIT)?;
                Box::new(decoder)
            }
        })
    }
}

/// Returns the window that a zstd frame asks for (RFC 8878, 3.1.1.1.2).
fn window(frame: &[u8]) -> Option<u64> {
    let [_, _, _, _, descriptor, window, ..] = frame else { return None };
    let base = 1_u64 << (10 + (window >> 3));
    (descriptor & 0x20 == 0 && frame.starts_with(&[0x28])).then(|| base + base / 8 * u64::from(window & 7))
}

/// The members of a gzip stream, and zeros behind them, with which some writers fill a block (gzip(1)).
struct Members<R>(Option<GzDecoder<R>>);

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.0 {
            let count = member.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let Some(mut rest) = self.0.take().map(GzDecoder::into_inner) else { break };
            loop {
                let next = rest.fill_buf()?;
                let zeros = next.iter().take_while(|&&byte| byte == 0).count();
                match (next.len(), zeros) {
                    (0, _) => return Ok(0),
                    (_, 0) => break,
                    _ => rest.consume(zeros),
                }
            }
            self.0 = Some(GzDecoder::new(rest));
        }
        Ok(0)
    }
}

impl Compression {
    /// Compresses what `fill` writes, into a sink that is given back. The same content gives the same bytes: gzip's header
    /// has no time.
    pub fn encode<W: Write, T, E: From<io::Error>>(
        self,
        mut out: W,
        fill: impl FnOnce(&mut dyn Write) -> Result<T, E>,
    ) -> Result<(W, T), E> {
        Ok(match self {
            Self::Plain => {
                let filled = fill(&mut out)?;
                (out, filled)
            }
            Self::Gzip => {
                let mut encoder = GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
                let filled = fill(&mut encoder)?;
                (encoder.finish()?, filled)
            }
            Self::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, 0)?;
                let filled = fill(&mut encoder)?;
                (encoder.finish()?, filled)
            }
        })
    }

    /// Returns the OCI's media type of a layer.
    pub fn media_type(self) -> MediaType {
        match self {
            Self::Plain => MediaType::ImageLayer,
            Self::Gzip => MediaType::ImageLayerGzip,
            Self::Zstd => MediaType::ImageLayerZstd,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        })
    }
}
