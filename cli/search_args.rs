//! What commands that search have in common: how much, from which seed, on how many threads, and where runs are kept.

use crate::failure::Failure;
use crate::resume::open_journal;
use rayon::{ThreadPool, ThreadPoolBuilder};
use sim::experiment::Journal;
use std::path::PathBuf;

/// See the module.
#[derive(clap::Args)]
pub(crate) struct SearchArgs {
    /// The most points that are run
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) evaluations: u32,

    /// The seed of the search itself
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub(crate) search_seed: u64,

    /// Runs at the same time, 0 for one a core; the result does not depend on it
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=1024))]
    jobs: u16,

    /// Keep finished runs in this file, and take from it those that are finished
    #[arg(long, value_name = "FILE.jsonl")]
    resume: Option<PathBuf>,
}

impl SearchArgs {
    /// The threads that it runs on.
    pub(crate) fn pool(&self) -> Result<ThreadPool, Failure> {
        ThreadPoolBuilder::new().num_threads(self.jobs.into()).build().map_err(Failure::failed)
    }

    /// Where finished runs are kept, if they are.
    pub(crate) fn journal(&self) -> Result<Option<Journal>, Failure> {
        self.resume.as_deref().map(open_journal).transpose()
    }
}
