//! The harness: what a test needs, the machine of its own that it runs on, and the report.

#![allow(dead_code, unused_imports, reason = "areas use what they need of it")]

mod command;
mod images;
mod leaks;
mod needs;
mod programs;
mod sandbox;
mod tree;
mod victim;
mod wait;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

pub(crate) use command::{Cmd, Outcome, Running};
pub(crate) use images::image;
pub(crate) use leaks::{Listing, since};
pub(crate) use needs::Need;
pub(crate) use programs::{directory as programs_directory, source};
pub(crate) use sandbox::Sandbox;
pub(crate) use tree::differences;
pub(crate) use wait::{http_client, listener, wait_for};

/// One fact about the programs.
pub(crate) struct Test {
    name: String,
    needs: &'static [Need],
    run: Box<dyn Fn(&Sandbox) + Send>,
}

/// Makes a test: its name is the fact (`whiteout_removes_the_lower_file`). With [`Need::Root`] among its needs it gets
/// a sandbox with namespaces of its own, else only a directory of its own.
pub(crate) fn test(name: &str, needs: &'static [Need], run: impl Fn(&Sandbox) + Send + 'static) -> Test {
    Test { name: name.to_owned(), needs, run: Box::new(run) }
}

impl Test {
    /// Prefixes the name: `area::fact`.
    pub(crate) fn in_area(mut self, area: &str) -> Self {
        self.name = format!("{area}::{}", self.name);
        self
    }

    /// Runs it in its sandbox and then looks for what it left behind.
    fn perform(&self) -> Result<(), Failed> {
        wait::start_the_clock();
        let sandbox = Sandbox::new(&self.name, self.needs)?;
        let before = Listing::take(&sandbox);
        let result = catch_unwind(AssertUnwindSafe(|| (self.run)(&sandbox)));
        let leaks = since(&before, &sandbox);
        match result {
            Err(panic) => resume_unwind(panic),
            Ok(()) if leaks.is_empty() => Ok(()),
            Ok(()) => Err(format!("left behind: {}", leaks.join("; ")).into()),
        }
    }

    fn into_trial(self, ignored: Arc<Mutex<Vec<String>>>) -> Trial {
        let strict = std::env::var_os("E2E_STRICT").is_some_and(|value| value == "1");
        Trial::ignorable_test(self.name.clone(), move || {
            if let Some(reason) = needs::unmet(self.needs) {
                if strict {
                    return Err(format!("E2E_STRICT=1 and a need is not met: {reason}").into());
                }
                let mut list = ignored.lock().unwrap_or_else(PoisonError::into_inner);
                list.push(format!("{}: {reason}", self.name));
                return Ok(Completion::ignored_with(reason));
            }
            self.perform().map(|()| Completion::Completed)
        })
    }
}

/// Runs what the command line selects and prints the count as the last line.
pub(crate) fn run(tests: Vec<Test>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Two at a time: each test is a whole machine, and most of them wait for the kernel anyhow.
    arguments.test_threads.get_or_insert(2);
    let ignored = Arc::new(Mutex::new(Vec::new()));
    let trials = tests.into_iter().map(|test| test.into_trial(Arc::clone(&ignored))).collect();
    let listing = arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !listing {
        let mut report = String::new();
        for line in ignored.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(report, "skipped {line}");
        }
        print!("{report}");
        println!(
            "e2e: {} passed, {} failed, {} skipped",
            conclusion.num_passed, conclusion.num_failed, conclusion.num_ignored
        );
    }
    conclusion.exit_code()
}
