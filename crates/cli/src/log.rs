//! The logger behind `-v`: plain lines on stderr, each with the tool's name, no time, no colour.

use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

static TOOL: OnceLock<String> = OnceLock::new();

/// What takes the lines in place of stderr.
type Sink = Box<dyn Fn(&Record<'_>) + Send + Sync>;
static SINK: OnceLock<Sink> = OnceLock::new();

/// Has every line go to `sink`, and none to stderr, which may be the container's. The first call counts.
///
/// The sink is called from every thread that logs, and it must not log itself.
pub fn log_to(sink: Sink) {
    let _first = SINK.set(sink);
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What libraries say of each connection is no step of ours: two -v show it, but never the bytes, which hold
        // passwords.
        let library = ["ureq", "rustls"].iter().any(|name| metadata.target().starts_with(name));
        let wanted = match log::max_level() {
            LevelFilter::Trace if library => LevelFilter::Debug,
            _ if library => LevelFilter::Warn,
            level => level,
        };
        metadata.level() <= wanted
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if let Some(sink) = SINK.get() {
            return sink(record);
        }
        let tool = TOOL.get().map_or("", String::as_str);
        let severity = if record.level() <= Level::Warn { "warning: " } else { "" };
        crate::eprint_line(&format!("{tool}: {severity}{}", record.args()));
    }

    fn flush(&self) {}
}

/// Installs the logger: warnings always, steps (`debug!`) with one `-v`, everything with two.
pub(crate) fn init(tool: &str, verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    };
    // A second call (a tool called by a peer's name) keeps the first one's name.
    let _first = TOOL.set(tool.to_owned());
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}
