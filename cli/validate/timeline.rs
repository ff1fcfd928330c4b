//! Both timelines in one file.

use super::worlds::Worlds;
use crate::failure::Failure;
use hw::device::{Deed, Span};
use policy::{Nanos, Paths, Time};
use sim::Case;
use sim::output::Draft;
use sim::timeline::{Chunk, ROOM, Timeline, write_together};
use std::path::Path;

/// Writes `timeline.json` to a folder, which is made where it is missing.
pub(super) fn write(folder: &Path, case: &Case, worlds: &Worlds) -> Result<(), Failure> {
    let Some(simulated) = worlds.simulated.world.timeline() else { return Ok(()) };
    let unwritable =
        |source| Failure::refused(format!("{}: the folder cannot be made: {source}", folder.display()));
    std::fs::create_dir_all(folder).map_err(unwritable)?;
    let measured = measured(case, &worlds.lockstep.spans);
    let mut draft = Draft::create(folder.join("timeline.json")).map_err(Failure::refused)?;
    let written = write_together(&mut draft, &[("simulated ", simulated), ("measured ", &measured)]);
    draft.complete(written).and_then(Draft::publish).map_err(Failure::failed)?;
    Ok(())
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
