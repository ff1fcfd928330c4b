//! What a run leaves in a folder: `decisions.jsonl`, `requests.csv`, `timeline.json`, `report.html`, `summary.json`, and
//! the placement for other engines: `placement.json`, `llama-cpp.txt`, `ktransformers.yaml`.
//! No file has its name before it is whole, and none gets it before all of them are.

mod decisions;
mod draft;
mod folder;
mod histogram;
mod ktransformers;
mod llama_cpp;
mod page;
mod placement;
mod requests;

use crate::report::Summary;
use crate::simulate::{Case, Keep, Outcome};
use decisions::DecisionLog;
pub use draft::Draft;
pub use folder::Folder;
use placement::Placement;
use policy::record::Decision;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why the files of a run could not be written.
#[derive(Debug, Error)]
pub enum OutputError {
    /// The path, or a part of it, is something else than a folder.
    #[error("{}: not a folder, so no files can be written into it; give the path of a folder, new or old", .path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// The folder cannot be made.
    #[error("{}: the folder cannot be made: {source}", .path.display())]
    Folder {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written: {source}{}", .path.display(), hint(source.kind()))]
    File {
        /// The path it would have had.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The page cannot be laid out.
    #[error("report.html cannot be laid out: {0}")]
    Page(#[from] minijinja::Error),
}

fn hint(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room, or write to another disk",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "; choose a folder you may write to",
        ErrorKind::IsADirectory => "; a folder has this name: remove it, or write elsewhere",
        _ => "",
    }
}

/// The names of the files.
const FILES: [&str; 8] = [
    "decisions.jsonl",
    "requests.csv",
    "report.html",
    "summary.json",
    "placement.json",
    "llama-cpp.txt",
    "ktransformers.yaml",
    "timeline.json",
];

/// See the module.
pub struct Output<'a> {
    case: &'a Case,
    decisions: DecisionLog<'a, Draft>,
    /// Below the drafts in it, which are dropped before.
    folder: Folder,
}

impl<'a> Output<'a> {
    /// What a run must keep for all files to be written.
    pub const KEEP: Keep = Keep { decisions: true, timeline: true };

    /// Begins the output of a run of `case`. The folder is made where it is missing.
    ///
    /// # Errors
    /// The path is not a folder and cannot become one, or a file cannot be made in it.
    pub fn create(folder: &Path, case: &'a Case) -> Result<Output<'a>, OutputError> {
        let folder = Folder::make(folder)?;
        folder.takes(&FILES)?;
        let decisions = DecisionLog::new(folder.draft("decisions.jsonl")?, &case.machine, &case.model);
        Ok(Output { case, decisions, folder })
    }

    /// Writes a decision down. A failure is kept for [`Output::finish`]: the run cannot be stopped from here.
    pub fn decision(&mut self, decision: &Decision) {
        self.decisions.write(decision);
    }

    /// Writes the other files and gives all of them their names, which it answers. Files of an earlier run are
    /// replaced. A run that did not keep its timeline has no `timeline.json`.
    ///
    /// # Errors
    /// A file cannot be written; then none of them appears, unless it was the last step, the naming, that failed.
    pub fn finish(
        self,
        scenario: &str,
        outcome: &Outcome,
        summary: &Summary,
    ) -> Result<Vec<PathBuf>, OutputError> {
        // Named first, dropped last.
        let Output { folder, case, decisions } = self;
        let draft = |name: &str, fill: &dyn Fn(&mut Draft) -> io::Result<()>| {
            let mut draft = folder.draft(name)?;
            let filled = fill(&mut draft);
            draft.complete(filled)
        };
        let tally = outcome.orchestrator.tally();
        let page = page::render(scenario, case, tally, summary)?;
        let placement = Placement::new(case, outcome);
        let (log, written) = decisions.into_parts();
        let mut drafts = vec![
            log.complete(written)?,
            draft("requests.csv", &|out| requests::write(out, &tally.requests))?,
            draft("report.html", &|out| io::Write::write_all(out, page.as_bytes()))?,
            draft("summary.json", &|out| {
                serde_json::to_writer_pretty(&mut *out, summary)?;
                io::Write::write_all(out, b"\n")
            })?,
            draft("placement.json", &|out| {
                serde_json::to_writer_pretty(&mut *out, &placement)?;
                io::Write::write_all(out, b"\n")
            })?,
            draft("llama-cpp.txt", &|out| llama_cpp::write(out, &placement))?,
            draft("ktransformers.yaml", &|out| ktransformers::write(out, &placement))?,
        ];
        if let Some(timeline) = outcome.world.timeline() {
            drafts.push(draft("timeline.json", &|out| timeline.write(out))?);
        }
        drafts.into_iter().map(Draft::publish).collect()
    }
}
