//! `--log`: the file in which hosts look for the reason of a failure, in the form of runc's logger; with `--debug` alone
//! stderr gets lines of that form.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use crate::options::{Global, LogFormat};

/// Where errors are written to beside stderr, warnings too, and the steps of `--debug` in its place.
pub(crate) struct Journal {
    file: Option<PathBuf>,
    format: LogFormat,
}

impl Journal {
    /// Returns the journal if one is asked for.
    pub(crate) fn new(global: &Global) -> Option<Arc<Self>> {
        let file = global.log.clone().filter(|file| !file.as_os_str().is_empty());
        if file.is_none() && !global.debug {
            return None;
        }
        // The working directory becomes the bundle's on the way.
        let file = file.map(|file| std::path::absolute(&file).unwrap_or(file));
        let journal = Arc::new(Self { file, format: global.log_format });
        // Hosts read the file after a success, too.
        let _reported_later = journal.open();
        let sink = Arc::clone(&journal);
        // What cannot be written is said at the first error.
        cli::log_to(Box::new(move |record| {
            // Warnings are on stderr already.
            if sink.file.is_some() || record.level() > log::Level::Warn {
                drop(sink.append(level(record.level()), &record.args().to_string()));
            }
        }));
        Some(journal)
    }

    /// Appends an error; the last one is shown to the user by containerd.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        // stderr gets it anyway.
        let Some(file) = &self.file else { return };
        if let Err(cause) = self.append("error", &format!("{error:#}")) {
            log::warn!("write {}: {cause}", file.display());
        }
    }

    fn append(&self, level: &str, message: &str) -> std::io::Result<()> {
        self.open()?.write_all(self.line(level, message).as_bytes())
    }

    fn open(&self) -> std::io::Result<Box<dyn Write>> {
        Ok(match &self.file {
            Some(file) => Box::new(OpenOptions::new().append(true).create(true).open(file)?),
            None => Box::new(std::io::stderr()),
        })
    }

    fn line(&self, level: &str, message: &str) -> String {
        let time = calendar::rfc3339_nanoseconds(calendar::now());
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
