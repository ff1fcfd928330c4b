//! What a run leaves in a folder: `decisions.jsonl`, `requests.csv`, `series.csv`, `timeline.json`, `report.html`, `summary.json`, and
//! the placement for other engines: `placement.json`, `llama-cpp.txt`, `ktransformers.yaml`.
//! No file has its name before it is whole, and none gets it before all of them are.

mod charts;
mod decisions;
mod draft;
mod folder;
mod ktransformers;
mod llama_cpp;
mod page;
mod placement;
mod requests;
mod series;
mod slowest;

use crate::page::PageError;
use crate::report::Summary;
use crate::series::Series;
use crate::simulate::{Case, Keep, Outcome};
use crate::world::World;
use decisions::DecisionLog;
pub use draft::Draft;
pub use folder::Folder;
use page::Run;
use placement::Placement;
use policy::record::Decision;
use policy::tally::RequestTimes;
use policy::{Orchestrator, Time, Watch};
use requests::RequestLog;
use slowest::Slowest;
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
    Page(#[from] PageError),
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
    requests: RequestLog<Draft>,
    slowest: Slowest,
    series: Series,
    /// Below the drafts in it, which are dropped before.
    folder: Folder,
}

impl<'a> Output<'a> {
    /// What a run must keep for all files to be written.
    pub const KEEP: Keep = Keep { decisions: true, timeline: true, recent: true };

    /// Begins the output of a run of `case`. The folder is made where it is missing.
    ///
    /// # Errors
    /// The path is not a folder and cannot become one, or a file cannot be made in it.
    pub fn create(folder: &Path, case: &'a Case) -> Result<Output<'a>, OutputError> {
        let folder = Folder::make(folder)?;
        folder.takes(&FILES)?;
        let decisions = DecisionLog::new(folder.draft("decisions.jsonl")?, &case.machine, &case.model);
        let requests = RequestLog::new(folder.draft("requests.csv")?);
        Ok(Output {
            case,
            decisions,
            requests,
            slowest: Slowest::default(),
            series: Series::default(),
            folder,
        })
    }

    /// Writes the other files and gives all of them their names, which it answers. Files of an earlier run are
    /// replaced. A run that did not keep its timeline has no `timeline.json`, one of several accelerators no placement.
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
        let Output { folder, case, slowest, mut series, decisions, requests } = self;
        let draft = |name: &str, fill: &dyn Fn(&mut Draft) -> io::Result<()>| {
            let mut draft = folder.draft(name)?;
            let filled = fill(&mut draft);
            draft.complete(filled)
        };
        series.finish(&outcome.orchestrator, &outcome.world);
        let (windows, tally) = (series.windows(), outcome.orchestrator.tally());
        let run = Run { scenario, case, tally, slowest: &slowest, windows: &windows, summary };
        let page = page::page(&run).render()?;
        // Other engines' files place all experts; where accelerators have some each, or some layers, they would speak of the first one's.
        let alone = !case.share.is_part() && !case.stage.is_part();
        let placement = alone.then(|| Placement::new(case, outcome));
        let (decisions, decided) = decisions.into_parts();
        let (requests, left) = requests.into_parts();
        let mut drafts = vec![
            decisions.complete(decided)?,
            requests.complete(left)?,
            draft("series.csv", &|out| series::write(out, &case.machine, &windows))?,
            draft("report.html", &|out| io::Write::write_all(out, page.as_bytes()))?,
            draft("summary.json", &|out| {
                serde_json::to_writer_pretty(&mut *out, summary)?;
                io::Write::write_all(out, b"\n")
            })?,
        ];
        if let Some(placement) = &placement {
            drafts.push(draft("placement.json", &|out| {
                serde_json::to_writer_pretty(&mut *out, placement)?;
                io::Write::write_all(out, b"\n")
            })?);
            drafts.push(draft("llama-cpp.txt", &|out| llama_cpp::write(out, placement))?);
            drafts.push(draft("ktransformers.yaml", &|out| ktransformers::write(out, placement))?);
        }
        if let Some(timeline) = outcome.world.timeline() {
            drafts.push(draft("timeline.json", &|out| timeline.write(out))?);
        }
        drafts.into_iter().map(Draft::publish).collect()
    }
}

/// Writes down what it sees. A failure is kept for [`Output::finish`]: the run cannot be stopped from here.
impl Watch<World> for Output<'_> {
    fn decision(&mut self, decision: Decision) {
        self.decisions.write(&decision);
    }

    fn request(&mut self, request: RequestTimes) {
        self.requests.write(&request);
        self.slowest.add(request);
    }

    fn event(&mut self, at: Time, orchestrator: &mut Orchestrator, world: &World) {
        self.series.event(at, orchestrator, world);
    }
}
