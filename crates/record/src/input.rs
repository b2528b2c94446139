//! The input rule that every stage follows: a directory argument is the artefact itself, made by anybody's tool; a
//! file, `-` or nothing is a record; nothing while stdin is a terminal is wrong usage, never a hang.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

use crate::{Error, Record, STDIN};

/// No stage writes a record this long, so that a wrong file on stdin cannot fill the memory. Bytes.
const RECORD_LIMIT: u64 = 16 << 20;

/// What a stage was given to work on.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A layout, a root file system or a bundle.
    Directory(PathBuf),
    /// What the stages before have made.
    Record(Record),
}

impl Input {
    /// Reads the argument by the input rule. From stdin only the first line is read, so a stage can start on the early
    /// record of the stage before it and take end of file, which comes later, as that stage's success.
    pub fn read(argument: Option<&Path>) -> Result<Self, Error> {
        match argument {
            Some(path) if path != Path::new("-") => Self::from_path(path),
            None if io::stdin().is_terminal() => Err(Error::Terminal),
            _ => {
                let _span = trace::span("wait for the record", "");
                Self::from_stdin()
            }
        }
    }

    fn from_path(path: &Path) -> Result<Self, Error> {
        let origin = path.display().to_string();
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let mut text = Vec::new();
        fs::File::open(path)
            .and_then(|file| file.take(RECORD_LIMIT).read_to_end(&mut text))
            .map_err(|cause| Error::Read { origin: origin.clone(), cause })?;
        Record::parse(&text, &origin).map(Self::Record)
    }

    fn from_stdin() -> Result<Self, Error> {
        let mut text = Vec::new();
        // A hand-made record may be spread over lines: read on while the JSON is only unfinished.
        let mut stdin = io::stdin().lock().take(RECORD_LIMIT);
        loop {
            let count =
                stdin.read_until(b'\n', &mut text).map_err(|cause| Error::Read { origin: STDIN.to_owned(), cause })?;
            let unfinished = serde_json::from_slice::<serde::de::IgnoredAny>(&text).is_err_and(|error| error.is_eof());
            if count == 0 || !unfinished {
                return Record::parse(&text, STDIN).map(Self::Record);
            }
        }
    }
}
