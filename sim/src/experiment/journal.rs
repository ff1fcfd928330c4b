//! Finished runs, kept in a file of JSON lines so that an experiment that was cut off goes on where it stopped.
//!
//! A line is appended whole and at once when its run is finished, under the digest of everything that decides the run,
//! the program included. The file is locked while it is open. A last line without its end is what a crash leaves: it is
//! dropped, and its run is done again. A file may hold the runs of several experiments.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

/// The longest line that is read: a hundred times what is written.
const LONGEST: u64 = 1 << 17;
/// How every line begins.
const BEGINNING: &[u8] = b"{\"run\":\"";

/// See the module.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
    program: u128,
    kept: BTreeMap<String, Option<Kept>>,
    torn: Option<usize>,
}

/// The figures of a finished run by name; null stands for none.
type Kept = IndexMap<String, Option<f64>>;

/// Why finished runs cannot be kept.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The file cannot be opened, read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is a folder, a pipe or a device.
    #[error("{}: not a file; give the path of a file of finished runs, new or old", .path.display())]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("{}: in use by another process; wait for it, or give another file", .path.display())]
    Busy {
        /// Its path.
        path: PathBuf,
    },
    /// A line is not a finished run.
    #[error("{}, line {line}: not a finished run: {why}; give a file that `--resume` wrote, or a new one", .path.display())]
    Foreign {
        /// The file's path.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// What is said of a run beside its figures.
pub(crate) struct Entry<'a> {
    /// The digest of what decides the run, the program aside.
    pub(crate) key: u128,
    pub(crate) scenario: &'a str,
    /// What is set beside the scenario.
    pub(crate) sweep: &'a IndexMap<String, String>,
    pub(crate) policy: &'a str,
    pub(crate) seed: u64,
}

/// A line of the file. Figures are by name; null stands for none.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    run: String,
    hotset_version: String,
    scenario: String,
    sweep: IndexMap<String, String>,
    policy: String,
    seed: u64,
    figures: Option<Kept>,
}

impl Journal {
    /// Opens a file of finished runs, or makes one, and reads what it holds. Runs count only if `program`, the bytes of
    /// the running program, is what made them: a changed policy is another policy.
    ///
    /// # Errors
    /// The file cannot be read, is in use, or holds something else.
    pub fn open(path: &Path, program: &[u8]) -> Result<Journal, JournalError> {
        let owned = || path.to_owned();
        let failed = |source| JournalError::File { path: owned(), source };
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(JournalError::NotAFile { path: owned() });
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Busy { path: owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let (kept, torn) = (BTreeMap::new(), None);
        let mut journal =
            Journal { path: owned(), file: Mutex::new(file), program: xxh3_128(program), kept, torn };
        journal.read()?;
        Ok(journal)
    }

    /// The number of a last line that had no end and was dropped.
    pub fn torn(&self) -> Option<usize> {
        self.torn
    }

    fn read(&mut self) -> Result<(), JournalError> {
        let path = self.path.clone();
        let failed = |source| JournalError::File { path: path.clone(), source };
        let file = self.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut reader = BufReader::new(&*file);
        let (mut bytes, mut whole) = (Vec::new(), 0_u64);
        for number in 1.. {
            bytes.clear();
            let length = reader.by_ref().take(LONGEST).read_until(b'\n', &mut bytes).map_err(failed)? as u64;
            let foreign = |why: String| JournalError::Foreign { path: path.clone(), line: number, why };
            match bytes.strip_suffix(b"\n") {
                Some(line) => {
                    let Line { run, figures, .. } =
                        serde_json::from_slice(line).map_err(|error| foreign(error.to_string()))?;
                    self.kept.insert(run, figures);
                    whole += length;
                }
                None if length == 0 => break,
                None if length < LONGEST && begins_well(&bytes) => {
                    file.set_len(whole).map_err(failed)?;
                    self.torn = Some(number);
                    break;
                }
                None => return Err(foreign("it does not begin like one, or does not end".to_owned())),
            }
        }
        Ok(())
    }

    /// The figures of a run, in the order of their names: those that are kept, or those of `run`, which are then. What is
    /// kept counts only if it has just these figures: another version has others.
    pub(crate) fn finished<E: From<JournalError>>(
        &self,
        entry: &Entry<'_>,
        names: &[&str],
        run: impl FnOnce() -> Result<Option<Vec<f64>>, E>,
    ) -> Result<Option<Vec<f64>>, E> {
        let key = xxh3_128(&[self.program.to_le_bytes(), entry.key.to_le_bytes()].concat());
        let key = format!("{key:032x}");
        match self.kept.get(&key) {
            Some(None) => return Ok(None),
            Some(Some(kept)) if kept.len() <= names.len() => {
                let figures = names.iter().map(|name| Some(kept.get(*name)?.unwrap_or(f64::NAN)));
                if let Some(figures) = figures.collect() {
                    return Ok(Some(figures));
                }
            }
            _ => {}
        }
        let values = run()?;
        let figures = values.as_ref().map(|values| {
            let number = |value: f64| Some(value).filter(|value| !value.is_nan());
            names.iter().zip(values).map(|(name, &value)| ((*name).to_owned(), number(value))).collect()
        });
        self.append(key, entry, figures)
            .map_err(|source| JournalError::File { path: self.path.clone(), source })?;
        Ok(values)
    }

    fn append(&self, run: String, entry: &Entry<'_>, figures: Option<Kept>) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Line {
            run,
            hotset_version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: entry.scenario.to_owned(),
            sweep: entry.sweep.clone(),
            policy: entry.policy.to_owned(),
            seed: entry.seed,
            figures,
        })?;
        line.push(b'\n');
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
    }
}

/// Whether a line without an end is one that was being written.
fn begins_well(torn: &[u8]) -> bool {
    torn.starts_with(BEGINNING) || BEGINNING.starts_with(torn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::{METRICS, STALL};

    const PROGRAM: &[u8] = b"program";

    /// Asks for run `key`; answers its stall and whether it had to be run.
    fn ask(journal: &Journal, key: u128) -> (f64, bool) {
        let sweep = IndexMap::from([("memory.hbm".to_owned(), "192 slots".to_owned())]);
        let entry = Entry { key, scenario: "a \"name\"", sweep: &sweep, policy: "lru", seed: 7 };
        let mut ran = false;
        let values = journal.finished(&entry, &METRICS.each_ref().map(|metric| metric.name), || {
            ran = true;
            let mut values = [f64::NAN; METRICS.len()];
            // A number whose shortest decimal form is hard to read back.
            values[STALL] = key as f64 / 3.0;
            Ok::<_, JournalError>(Some(values.to_vec()))
        });
        (values.unwrap().unwrap()[STALL], ran)
    }

    #[test]
    fn what_is_finished_is_not_run_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.jsonl");
        let journal = Journal::open(&path, PROGRAM).unwrap();
        for key in 1..50 {
            assert!(ask(&journal, key).1);
        }
        assert!(
            matches!(Journal::open(&path, PROGRAM), Err(JournalError::Busy { .. })),
            "one process at a time"
        );
        drop(journal);
        let again = Journal::open(&path, PROGRAM).unwrap();
        for key in 1..50 {
            assert_eq!(ask(&again, key), (key as f64 / 3.0, false));
        }
        assert!(ask(&again, 50).1);
        drop(again);
        assert!(ask(&Journal::open(&path, b"another").unwrap(), 1).1, "another program's runs do not count");
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_a_foreign_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runs.jsonl");
        for key in 1..4 {
            ask(&Journal::open(&path, PROGRAM).unwrap(), key);
        }
        let whole = std::fs::read(&path).unwrap();
        let line = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        let last = whole.split_inclusive(|&byte| byte == b'\n').next_back().unwrap();
        for cut in 1..last.len() {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let journal = Journal::open(&path, PROGRAM).unwrap();
            assert_eq!(journal.torn(), Some(3));
            assert!(!ask(&journal, 2).1 && ask(&journal, 3).1);
            drop(journal);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
        let foreign = [
            [&whole[..line], b"{}\n", &whole[line..]].concat(),
            [&whole[..line], b"my notes"].concat(),
            [&whole[..line], &[b'{'; 1 << 18]].concat(),
        ];
        for bytes in foreign {
            std::fs::write(&path, &bytes).unwrap();
            let refused = Journal::open(&path, PROGRAM).unwrap_err();
            assert!(matches!(refused, JournalError::Foreign { line: 2, .. }), "{refused}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "left as it was");
        }
        let refused = Journal::open(folder.path(), PROGRAM).unwrap_err();
        assert!(matches!(refused, JournalError::File { .. }), "{refused}");
    }
}
