//! Ctrl-C: files are whole or absent afterwards, and what was finished is kept where `--resume` says.

use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The exit code of a process that was interrupted, as shells have it.
const INTERRUPTED: i32 = 130;

static KEPT_IN: OnceLock<PathBuf> = OnceLock::new();

/// From now on an interrupted process takes its unfinished files away.
pub(crate) fn watch() {
    // Without the handler, a process ends as it would anyway.
    let _ = ctrlc::set_handler(|| {
        let mut errors = stderr().lock();
        let _ = match KEPT_IN.get() {
            Some(path) => writeln!(
                errors,
                "\ninterrupted; finished runs are kept in {}: the same command goes on from there",
                path.display()
            ),
            None => writeln!(errors, "\ninterrupted"),
        };
        traces::unfinished::abandon(INTERRUPTED)
    });
}

/// Finished runs are kept in this file.
pub(crate) fn kept_in(path: &Path) {
    let _ = KEPT_IN.set(path.to_owned());
}
