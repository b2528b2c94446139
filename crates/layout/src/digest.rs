//! Digests (image-spec, descriptor.md, "Digests"): computing them, and readers that check or compute on the way.

use std::fmt::Write;
use std::io::{self, BufReader, Read};

use oci_spec::image::{Descriptor, Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha512};

use crate::Error;

/// Computes one digest, piece by piece.
#[derive(Clone, Debug)]
pub struct Digester(State);

#[derive(Clone, Debug)]
enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Digester {
    /// Returns a digester of the algorithm of `digest`.
    pub fn like(digest: &Digest) -> Result<Self, Error> {
        match digest.algorithm() {
            DigestAlgorithm::Sha256 => Ok(Self::sha256()),
            DigestAlgorithm::Sha512 => Ok(Self(State::Sha512(Box::default()))),
            _ => Err(Error::Algorithm(digest.clone())),
        }
    }

    /// Returns a digester for SHA-256, what everybody uses.
    pub fn sha256() -> Self {
        Self(State::Sha256(Sha256::new()))
    }

    /// Adds content.
    pub fn update(&mut self, bytes: &[u8]) {
        let _span = trace::span("digest", format_args!("{} bytes", bytes.len()));
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// Adds all that a reader has, and returns how many bytes that was.
    ///
    /// In pieces of 128 KiB: `io::copy` takes 8 KiB at once where its writer is not a file.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn read(&mut self, content: impl Read) -> io::Result<u64> {
        io::copy(&mut BufReader::with_capacity(128 << 10, content), self)
    }

    /// Returns the digest.
    pub fn finish(self) -> Digest {
        let text = match self.0 {
            State::Sha256(state) => hexadecimal("sha256:", &state.finalize()),
            State::Sha512(state) => hexadecimal("sha512:", &state.finalize()),
        };
        #[expect(clippy::expect_used, reason = "it has just been written so")]
        text.parse().expect("an algorithm and as many digits as it has")
    }

    /// Compares the content so far with `want`.
    pub fn verify(self, want: &Digest) -> Result<(), Error> {
        let got = self.finish();
        if got == *want { Ok(()) } else { Err(Error::Digest { want: want.clone(), got }) }
    }
}

impl io::Write for Digester {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hexadecimal(prefix: &str, bytes: &[u8]) -> String {
    bytes.iter().fold(prefix.to_owned(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

/// Returns the SHA-256 digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut digester = Digester::sha256();
    digester.update(bytes);
    digester.finish()
}

/// Checks `bytes` against a descriptor: the size first, then the digest.
pub fn verify(descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
    let got = bytes.len() as u64;
    if got != descriptor.size() {
        return Err(Error::Size { digest: descriptor.digest().clone(), want: descriptor.size(), got });
    }
    let mut digester = Digester::like(descriptor.digest())?;
    digester.update(bytes);
    digester.verify(descriptor.digest())
}

/// A reader of one blob that checks it: the read which reaches the descriptor's size fails if the digest is wrong, so
/// who has read all bytes has read right ones. Who stops early has checked nothing.
#[derive(Debug)]
pub struct Verified<R> {
    inner: R,
    digest: Digest,
    digester: Option<Digester>,
    size: u64,
    left: u64,
}

impl<R: Read> Verified<R> {
    /// Wraps a reader of the descriptor's blob.
    pub fn new(inner: R, descriptor: &Descriptor) -> Result<Self, Error> {
        let digester = Some(Digester::like(descriptor.digest())?);
        let size = descriptor.size();
        Ok(Self { inner, digest: descriptor.digest().clone(), digester, size, left: size })
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = if room == 0 { 0 } else { self.inner.read(&mut buffer[..room])? };
        if count == 0 && room > 0 {
            let got = self.size - self.left;
            return Err(Error::Size { digest: self.digest.clone(), want: self.size, got }.into());
        }
        self.left -= count as u64;
        if let Some(digester) = &mut self.digester {
            digester.update(&buffer[..count]);
        }
        if self.left == 0 {
            self.digester.take().map_or(Ok(()), |digester| digester.verify(&self.digest))?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use oci_spec::image::MediaType;

    use super::*;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn read(content: &[u8], size: u64, digest: &str) -> Result<Vec<u8>, String> {
        let descriptor = Descriptor::new(MediaType::ImageLayer, size, Digest::from_str(digest).unwrap());
        let mut bytes = Vec::new();
        let mut reader = Verified::new(content, &descriptor).map_err(|error| error.to_string())?;
        reader.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    #[test]
    fn size_is_checked_before_the_digest() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (content, size, digest, want) in [
            (&b"abc"[..], 3, ABC, Ok(b"abc".to_vec())),
            (b"", 0, empty, Ok(vec![])),
            (b"abcd", 3, ABC, Ok(b"abc".to_vec())),
            (b"ab", 3, ABC, Err(format!("blob {ABC}: size is 2, not 3 as its descriptor says"))),
            (b"abc", 3, empty, Err(format!("blob {empty}: content has digest {ABC}"))),
            (b"abc", 3, "blake3:ab", Err("blake3:ab: digest algorithm is not supported".to_owned())),
        ] {
            assert_eq!(read(content, size, digest), want);
        }
    }

    #[test]
    fn sha512_is_known_too() {
        let digest = "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                      2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        assert_eq!(read(b"abc", 3, digest), Ok(b"abc".to_vec()));
    }
}
