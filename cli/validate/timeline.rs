//! Both timelines in one file.

use super::worlds::Worlds;
use crate::failure::Failure;
use hw::device::{Deed, Span};
use policy::{Nanos, Paths, Time};
use sim::Case;
use sim::output::{Draft, Folder};
use sim::timeline::{Chunk, ROOM, Timeline, write_together};
use std::path::Path;

/// `timeline.json`, begun before the run: a folder that cannot be written to is found before minutes of it.
pub(super) struct File {
    draft: Draft,
    /// Below the draft in it, which is dropped before.
    _folder: Folder,
}

impl File {
    /// Begins the file in a folder, which is made where it is missing.
    pub(super) fn begin(folder: &Path) -> Result<File, Failure> {
        let folder = Folder::make(folder).map_err(Failure::refused)?;
        let draft = folder.draft("timeline.json").map_err(Failure::refused)?;
        Ok(File { draft, _folder: folder })
    }

    /// Writes what both worlds did.
    pub(super) fn write(self, case: &Case, worlds: &Worlds) -> Result<(), Failure> {
        // Named first, dropped last.
        let File { _folder, mut draft } = self;
        let Some(simulated) = worlds.simulated.world.timeline() else { return Ok(()) };
        let measured = measured(case, &worlds.lockstep.spans);
        let written = write_together(&mut draft, &[("simulated ", simulated), ("measured ", &measured)]);
        draft.complete(written).and_then(Draft::publish).map_err(Failure::failed)?;
        Ok(())
    }
}

/// What the device did, as a timeline of the machine it stood for.
fn measured(case: &Case, spans: &[Span]) -> Timeline {
    let mut timeline = Timeline::new(case.machine.clone(), case.model.clone(), ROOM);
    let paths = Paths::new(&case.machine);
    let mut spans = spans.to_vec();
    spans.sort_by_key(|span| span.from + span.took);
    for Span { from, took, what } in spans {
        let from = Time(from.0);
        match what {
            Deed::Compute(layer, part) => timeline.compute(layer, part, from, took),
            // The simulated one has blocks only.
            Deed::State(_) => {}
            Deed::Chunk(chunk) if chunk.from.tier(chunk.to) == chunk.to.tier => {
                timeline.coding(chunk.block, chunk.from, chunk.to, from, took);
            }
            Deed::Chunk(chunk) => {
                let carried = Chunk {
                    id: chunk.id,
                    block: chunk.block,
                    from: chunk.from,
                    to: chunk.to,
                    class: chunk.class,
                    bytes: chunk.len,
                    queued: Nanos::ZERO,
                };
                let path = paths.between(chunk.from.tier(chunk.to), chunk.to.tier);
                let links = path.into_iter().flat_map(|path| &path.links);
                links.for_each(|link| timeline.carried(*link, carried, from, from + took));
            }
        }
    }
    timeline
}
