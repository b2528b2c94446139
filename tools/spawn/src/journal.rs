//! `--log`: the file in which hosts look for the reason of a failure, in the form of runc's logger.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use crate::clock;
use crate::options::{Global, LogFormat};

/// Where errors are written to beside stderr.
pub(crate) struct Journal {
    file: Option<PathBuf>,
    format: LogFormat,
}

impl Journal {
    pub(crate) fn new(global: &Global) -> Self {
        let file = global.log.clone().filter(|file| !file.as_os_str().is_empty());
        let journal = Self { file, format: global.log_format };
        // Hosts read the file after a success, too.
        if let Some(file) = &journal.file {
            let _reported_later = OpenOptions::new().append(true).create(true).open(file);
        }
        journal
    }

    /// Appends an error; the last one is shown to the user by containerd.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let Some(file) = &self.file else { return };
        let line = self.line(&format!("{error:#}"));
        if let Err(cause) =
            OpenOptions::new().append(true).create(true).open(file).and_then(|mut file| file.write_all(line.as_bytes()))
        {
            log::warn!("write {}: {cause}", file.display());
        }
    }

    fn line(&self, message: &str) -> String {
        let time = clock::now();
        match self.format {
            LogFormat::Json => serde_json::json!({"level": "error", "msg": message, "time": time}).to_string() + "\n",
            LogFormat::Text => format!("time={time:?} level=error msg={message:?}\n"),
        }
    }
}
