//! One trace of what all the programs of a run do, and when: a file in the Trace Event Format (JSON array form), which
//! Chrome's and Perfetto's viewers show as a flame chart. `$DRAYAGE_TRACE` names it. Every program appends what it has
//! done, an event a line and a write, so that the lines of several do not mix. Where there is no trace, a span costs a
//! look at a flag.
//!
//! A span that is dropped is written: by one write(2) with `O_APPEND`, which the kernel does not mix with others' on a
//! file. A process that is killed leaves its spans unwritten, and the file without its closing bracket, which viewers
//! accept.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// The variable that names the file, for the programs that this one starts.
pub const VARIABLE: &str = "DRAYAGE_TRACE";

static ON: AtomicBool = AtomicBool::new(false);
static TRACE: RwLock<Option<Trace>> = RwLock::new(None);

thread_local! {
    /// Whether the trace knows this thread's name.
    static NAMED: Cell<bool> = const { Cell::new(false) };
}

/// The trace of this process.
struct Trace {
    file: File,
    /// What the kernel knows of this process, opened before it may be confined.
    stat: Option<File>,
    path: PathBuf,
    /// The process in the trace: a cloned one is a track of it.
    pid: i32,
    program: String,
    begun: Moment,
    /// Whether this process ends the trace for all.
    last: bool,
}

/// Microseconds of the clock that all processes share.
///
/// `CLOCK_MONOTONIC` is the same for all processes outside of time namespaces.
#[derive(Clone, Copy)]
struct Moment(f64);

impl Moment {
    fn now() -> Self {
        Self::of(ClockId::Monotonic)
    }

    fn of(clock: ClockId) -> Self {
        let now = clock_gettime(clock);
        #[expect(clippy::cast_precision_loss, reason = "microseconds of years have room in 53 bits")]
        Self(now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3)
    }
}

/// Begins this process's part, if the environment names a trace.
pub fn begin(program: &str) -> io::Result<()> {
    match std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => append(program, &std::path::absolute(path)?, false),
        None => Ok(()),
    }
}

/// Begins a trace in a new file, in the place of one that is there, and ends it as a whole. The programs that this one
/// starts get it by [`variable`], and have to be waited for.
pub fn create(program: &str, path: &Path) -> io::Result<()> {
    let path = std::path::absolute(path)?;
    if !output::is_written_in_place(&path)? {
        sys::file::there(fs::remove_file(&path))?;
    }
    append(program, &path, true)
}

fn append(program: &str, path: &Path, last: bool) -> io::Result<()> {
    let file = open(path)?;
    let pid = rustix::process::getpid().as_raw_pid();
    let stat = File::open("/proc/self/stat").ok();
    let trace =
        Trace { file, stat, path: path.to_owned(), pid, program: program.to_owned(), begun: Moment::now(), last };
    trace.name("process_name", pid, program);
    if let Ok(mut slot) = TRACE.write() {
        *slot = Some(trace);
        ON.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Opens the file. Who makes it gives it its first line under another name, so that nobody's event comes before that.
fn open(path: &Path) -> io::Result<File> {
    let open = || output::open(path);
    match open() {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        opened => return opened,
    }
    let mut temporary = path.to_owned().into_os_string();
    temporary.push(format!(".{}", std::process::id()));
    let made = File::create_new(&temporary).and_then(|mut file| file.write_all(b"[\n")).and_then(|()| {
        // link(2) fails where the name is taken, unlike rename(2): of two that begin at once, one gives the first
        // line.
        sys::unless(&[Errno::EXIST], fs::hard_link(&temporary, path)).map(drop)
    });
    let _gone = fs::remove_file(&temporary);
    made.and_then(|()| open())
}

/// Returns the variable by which a program that this one starts goes on with the trace.
pub fn variable() -> Option<(&'static str, PathBuf)> {
    if !ON.load(Ordering::Relaxed) {
        return None;
    }
    TRACE.read().ok()?.as_ref().map(|trace| (VARIABLE, trace.path.clone()))
}

/// Ends this process's part: a span for the whole of it, with what it has used (`cpu` in microseconds, page `faults`), and
/// nothing after that.
pub fn end() {
    if !ON.swap(false, Ordering::Relaxed) {
        return;
    }
    if let Some(trace) = TRACE.write().ok().and_then(|mut slot| slot.take()) {
        let Moment(cpu) = Moment::of(ClockId::ProcessCPUTime);
        let used = format!(r#"{{"cpu":{cpu:.0},"faults":{}}}"#, trace.faults().unwrap_or_default());
        trace.write(&trace.event(&trace.program, &used, trace.begun), if trace.last { "\n]\n" } else { ",\n" });
    }
}

/// Takes no part from here on: in a copy of the process whose trace it is.
pub fn leave() {
    ON.store(false, Ordering::Relaxed);
}

/// Names the calling thread, or cloned process, in the trace.
pub fn track(name: &str) {
    NAMED.set(true);
    with(|trace| trace.name("thread_name", rustix::thread::gettid().as_raw_pid(), name));
}

/// Begins something that takes time, and ends when it is dropped. `of` is what it is done to.
///
/// The text of `of` is made only if there is a trace.
#[must_use]
pub fn span(name: &'static str, of: impl Display) -> Timed {
    Timed(ON.load(Ordering::Relaxed).then(|| Begun { name, of: of.to_string(), at: Moment::now() }))
}

/// Something that takes time: see [`span`].
#[derive(Default)]
pub struct Timed(Option<Begun>);

struct Begun {
    name: &'static str,
    of: String,
    at: Moment,
}

impl Drop for Timed {
    fn drop(&mut self) {
        let Some(Begun { name, of, at }) = &self.0 else { return };
        if !NAMED.replace(true) {
            let thread = std::thread::current();
            track(thread.name().unwrap_or("thread"));
        }
        let of = if of.is_empty() { String::new() } else { json!({ "of": of }).to_string() };
        with(|trace| trace.write(&trace.event(name, &of, *at), ",\n"));
    }
}

fn with(act: impl FnOnce(&Trace)) {
    if ON.load(Ordering::Relaxed) {
        if let Some(trace) = TRACE.read().ok().as_deref().and_then(Option::as_ref) {
            act(trace);
        }
    }
}

impl Trace {
    /// A complete event (`X`), from `begun` to now. `arguments` is a JSON object, or empty.
    fn event(&self, name: &str, arguments: &str, begun: Moment) -> String {
        let (pid, tid) = (self.pid, rustix::thread::gettid().as_raw_pid());
        let Moment(from) = begun;
        let took = (Moment::now().0 - from).max(0.0);
        let name = Value::from(name);
        let arguments = if arguments.is_empty() { String::new() } else { format!(r#","args":{arguments}"#) };
        format!(r#"{{"name":{name},"ph":"X","ts":{from:.3},"dur":{took:.3},"pid":{pid},"tid":{tid}{arguments}}}"#)
    }

    /// A metadata event (`M`).
    fn name(&self, what: &str, tid: i32, name: &str) {
        let (pid, name) = (self.pid, Value::from(name));
        let line = format!(r#"{{"name":"{what}","ph":"M","pid":{pid},"tid":{tid},"args":{{"name":{name}}}}}"#);
        self.write(&line, ",\n");
    }

    /// How many page faults this process has had, those that needed no disk (`proc_pid_stat(5)`, minflt).
    fn faults(&self) -> Option<u64> {
        let stat = io::read_to_string(self.stat.as_ref()?).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(7)?.parse().ok()
    }

    fn write(&self, event: &str, after: &str) {
        // A trace that cannot be written is no reason to fail: the disk is full, say.
        let _lost = (&self.file).write_all(format!("{event}{after}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_threads_did_is_one_array() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        drop(span("before", "nobody hears of it"));
        assert_eq!(variable(), None);
        append("first", &path, false).unwrap();
        assert_eq!(variable(), Some((VARIABLE, path.clone())));
        {
            let _outer = span("outer", "");
            let _inner = span("inner", format_args!("a \"word\"\n"));
            let other = std::thread::Builder::new().name("worker".to_owned());
            other.spawn(|| drop(span("elsewhere", 1))).unwrap().join().unwrap();
        }
        end();
        append("second", &path, true).unwrap();
        end();
        drop(span("after", ""));
        let read = || serde_json::from_slice::<Vec<Value>>(&fs::read(&path).unwrap()).unwrap();
        let events = read();
        let text = |event: &Value| format!("{} {}", event["ph"].as_str().unwrap(), event["name"].as_str().unwrap());
        let names = |name: &str| {
            let named = events.iter().filter(|event| event["name"] == name);
            named.map(|event| event["args"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("process_name"), ["first", "second"]);
        assert!(names("thread_name").contains(&"worker".to_owned()));
        let done: Vec<String> = events.iter().filter(|event| event["ph"] == "X").map(text).collect();
        assert_eq!(done, ["X elsewhere", "X inner", "X outer", "X first", "X second"]);
        assert_eq!(events.iter().find(|event| event["name"] == "inner").unwrap()["args"]["of"], "a \"word\"\n");
        create("another", &path).unwrap();
        end();
        assert_eq!(read().len(), 2);
    }
}
