//! Progress for people (bars, while stderr is a terminal) or for programs (JSON lines).

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use oci_spec::image::Descriptor;
use serde_json::json;

/// Shortest time between two lines on one blob.
const PACE: Duration = Duration::from_millis(200);

/// `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgressForm {
    /// Bars while stderr is a terminal, else nothing.
    #[default]
    Auto,
    /// Nothing.
    None,
    /// JSON lines to a file descriptor.
    Json(i32),
}

impl FromStr for ProgressForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "none" => Ok(Self::None),
            None if text == "json" => Ok(Self::Json(2)),
            Some(("json", fd)) => match fd.parse() {
                Ok(fd) if fd > 0 => Ok(Self::Json(fd)),
                _ => Err(format!("{fd:?} is no file descriptor")),
            },
            _ => Err("say auto, none, json or json:FD".to_owned()),
        }
    }
}

/// Where progress goes.
pub enum Progress {
    /// Nowhere.
    None,
    /// To a terminal.
    Bars(MultiProgress),
    /// To a program.
    Json(Mutex<File>),
}

impl Progress {
    /// Opens what the form says.
    pub fn open(form: ProgressForm) -> anyhow::Result<Self> {
        Ok(match form {
            ProgressForm::Auto if io::stderr().is_terminal() => {
                Self::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)))
            }
            ProgressForm::Auto | ProgressForm::None => Self::None,
            ProgressForm::Json(fd) => {
                let path = format!("/proc/self/fd/{fd}");
                let file =
                    File::options().append(true).open(&path).with_context(|| format!("write progress to fd {fd}"))?;
                Self::Json(Mutex::new(file))
            }
        })
    }

    /// Starts the meter of one blob.
    pub fn blob(&self, descriptor: &Descriptor) -> Meter<'_> {
        let bar = match self {
            Self::Bars(bars) => {
                let name: String = descriptor.digest().digest().chars().take(12).collect();
                Some(bars.add(ProgressBar::new(descriptor.size()).with_style(style()).with_prefix(name)))
            }
            _ => None,
        };
        let (digest, size) = (descriptor.digest().to_string(), descriptor.size());
        Meter { progress: self, bar, digest, size, offset: 0, told: Instant::now() }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} {bar:30} {bytes:>11} / {total_bytes:<11} {bytes_per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// One blob's progress.
pub struct Meter<'a> {
    progress: &'a Progress,
    bar: Option<ProgressBar>,
    digest: String,
    size: u64,
    offset: u64,
    told: Instant,
}

impl Meter<'_> {
    /// The blob needs no transfer.
    pub fn present(&mut self) {
        self.offset = self.size;
        self.tell("present");
        self.finish();
    }

    /// The transfer begins at an offset.
    pub fn resume(&mut self, offset: u64) {
        self.offset = offset;
        if let Some(bar) = &self.bar {
            bar.set_position(offset);
        }
        self.tell("start");
    }

    /// Bytes have come.
    pub fn advance(&mut self, count: u64) {
        self.offset += count;
        if let Some(bar) = &self.bar {
            bar.set_position(self.offset);
        }
        if self.told.elapsed() >= PACE {
            self.tell("progress");
        }
    }

    /// The blob is there and right.
    pub fn done(&mut self) {
        self.tell("done");
        self.finish();
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn tell(&mut self, event: &str) {
        self.told = Instant::now();
        let Progress::Json(out) = self.progress else { return };
        let line = json!({"event": event, "digest": self.digest, "offset": self.offset, "size": self.size});
        if let Ok(mut out) = out.lock() {
            // Who no longer listens to progress still wants the image.
            let _closed = out.write_all(format!("{line}\n").as_bytes());
        }
    }
}
