//! `--resume`: finished runs are kept in a file, and an experiment that was cut off goes on from there.

use crate::failure::Failure;
use crate::interrupt;
use sim::experiment::Journal;
use std::path::Path;

/// The file of finished runs, which count for this very program.
pub(crate) fn open_journal(path: &Path) -> Result<Journal, Failure> {
    let program = std::env::current_exe().and_then(std::fs::read);
    let program =
        program.map_err(|error| Failure::failed(format!("the program cannot read itself: {error}")))?;
    let journal = Journal::open(path, &program).map_err(Failure::refused)?;
    if let Some(line) = journal.torn() {
        eprintln!("note: {}, line {line}: cut off, dropped; its run is done again", path.display());
    }
    interrupt::kept_in(path);
    Ok(journal)
}
