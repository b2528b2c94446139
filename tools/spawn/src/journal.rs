//! `--log`: the file in which hosts look for the reason of a failure, in the form of runc's logger; with `--debug` alone
//! stderr gets lines of that form.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::request::{Global, JournalFormat};

/// Where errors are written to beside stderr, and warnings and the steps of `--debug` in its place.
pub(crate) struct Journal {
    /// Opened once, since it may be a pipe whose reader waits for the end of it.
    file: Option<(PathBuf, io::Result<File>)>,
    format: JournalFormat,
}

impl Journal {
    /// Returns the journal if one is asked for.
    pub(crate) fn new(global: &Global) -> Option<Arc<Self>> {
        let file = global.log.clone().filter(|file| !file.as_os_str().is_empty());
        if file.is_none() && !global.debug {
            return None;
        }
        let open = |file: &PathBuf| OpenOptions::new().append(true).create(true).open(file);
        let file = file.map(|file| (file.clone(), open(&file)));
        let journal = Arc::new(Self { file, format: global.log_format });
        let sink = Arc::clone(&journal);
        // What cannot be written is said at the first error.
        cli::log_to(Box::new(move |record| drop(sink.append(&level(record.level()), &record.args().to_string()))));
        Some(journal)
    }

    /// Appends an error; the last one is shown to the user by containerd.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        // stderr gets it anyway.
        let Some((file, _)) = &self.file else { return };
        if let Err(cause) = self.append("error", &format!("{error:#}")) {
            cli::eprint_line(&format!("spawn: warning: write {}: {cause}", file.display()));
        }
    }

    fn append(&self, level: &str, message: &str) -> io::Result<()> {
        let line = self.line(level, message);
        match &self.file {
            None => io::stderr().write_all(line.as_bytes()),
            // One write for a line: several commands of a host append to the same file.
            Some((_, Ok(file))) => (&*file).write_all(line.as_bytes()),
            Some((_, Err(error))) => Err(error.kind().into()),
        }
    }

    fn line(&self, level: &str, message: &str) -> String {
        let time = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
        match self.format {
            JournalFormat::Json => serde_json::json!({"level": level, "msg": message, "time": time}).to_string() + "\n",
            JournalFormat::Text => format!("time={time:?} level={level} msg={message:?}\n"),
        }
    }
}

/// A level in runc's words.
fn level(level: log::Level) -> String {
    match level {
        log::Level::Warn => "warning".to_owned(),
        log::Level::Trace => "debug".to_owned(),
        other => other.as_str().to_lowercase(),
    }
}
