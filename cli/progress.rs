//! A progress bar for work that takes a while.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// Work shorter than this shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);
const REDRAW: Duration = Duration::from_millis(200);

/// A bar on stderr. It appears after a second, only on a terminal, and is gone when dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Dropped with the bar, which ends the thread that would show it.
    _alive: Sender<()>,
}

impl Progress {
    /// A bar over `total` pieces of work, called `what`.
    pub(crate) fn new(total: u64, what: &'static str) -> Progress {
        Progress::start(Some(total), "{msg} {wide_bar} {pos}/{len} {eta}", what)
    }

    /// The time so far, for work in one piece.
    pub(crate) fn spinner(what: &'static str) -> Progress {
        Progress::start(None, "{spinner} {msg} {elapsed}", what)
    }

    fn start(total: Option<u64>, template: &str, what: &'static str) -> Progress {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let bar = bar.with_style(style).with_message(what);
        let (alive, over) = mpsc::channel();
        if stderr().is_terminal() {
            let bar = bar.clone();
            thread::spawn(move || {
                if over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    bar.enable_steady_tick(REDRAW);
                }
            });
        }
        Progress { bar, _alive: alive }
    }

    /// A bar over work whose size is told as it goes on: see [`Progress::at`].
    pub(crate) fn share(what: &'static str) -> Progress {
        Progress::start(Some(0), "{msg} {wide_bar} {percent} %, {eta} to go", what)
    }

    /// So much of all the work is done.
    pub(crate) fn at(&self, done: u64, of: u64) {
        self.bar.set_length(of);
        self.bar.set_position(done);
    }

    /// So many more pieces of work are to come.
    pub(crate) fn expect(&self, more: u64) {
        self.bar.inc_length(more);
    }

    /// What is being done now.
    pub(crate) fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// One piece of work is done.
    pub(crate) fn step(&self) {
        self.bar.inc(1);
        // Where more came than was expected, there is at least this.
        if self.bar.length().is_some_and(|length| length < self.bar.position()) {
            self.bar.set_length(self.bar.position());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
