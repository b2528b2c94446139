//! `--log`: the file in which hosts look for the reason of a failure, in the form of runc's logger.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use crate::clock;
use crate::options::{Global, LogFormat};

/// Where errors are written to beside stderr, warnings too, and the steps of `--debug` in its place.
pub(crate) struct Journal {
    file: PathBuf,
    format: LogFormat,
}

impl Journal {
    /// Returns the journal if one is asked for.
    pub(crate) fn new(global: &Global) -> Option<Arc<Self>> {
        let file = global.log.clone().filter(|file| !file.as_os_str().is_empty())?;
        // The working directory becomes the bundle's on the way.
        let file = std::path::absolute(&file).unwrap_or(file);
        let journal = Arc::new(Self { file, format: global.log_format });
        // Hosts read the file after a success, too.
        let _reported_later = OpenOptions::new().append(true).create(true).open(&journal.file);
        let sink = Arc::clone(&journal);
        // What cannot be written is said at the first error.
        cli::log_to(Box::new(move |record| drop(sink.append(level(record.level()), &record.args().to_string()))));
        Some(journal)
    }

    /// Appends an error; the last one is shown to the user by containerd.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        if let Err(cause) = self.append("error", &format!("{error:#}")) {
            log::warn!("write {}: {cause}", self.file.display());
        }
    }

    fn append(&self, level: &str, message: &str) -> std::io::Result<()> {
        let line = self.line(level, message);
        OpenOptions::new().append(true).create(true).open(&self.file)?.write_all(line.as_bytes())
    }

    fn line(&self, level: &str, message: &str) -> String {
        let time = clock::now();
        match self.format {
            LogFormat::Json => serde_json::json!({"level": level, "msg": message, "time": time}).to_string() + "\n",
            LogFormat::Text => format!("time={time:?} level={level} msg={message:?}\n"),
        }
    }
}

/// A level in runc's words.
const fn level(level: log::Level) -> &'static str {
    match level {
        log::Level::Error => "error",
        log::Level::Warn => "warning",
        log::Level::Info => "info",
        log::Level::Debug | log::Level::Trace => "debug",
    }
}
