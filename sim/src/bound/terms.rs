//! What machine, model and guard make of a block: its choices, and the longest that compute can take.

use super::program::{Choice, Program};
use super::ways::Ways;
use crate::compute::Kernel;
use crate::operators::Operators;
use crate::simulate::Case;
use policy::event::{Form, Part, Read, Routed, Slice};
use policy::guard::Guard;
use policy::machine::{Class, Link};
use policy::model::Block;
use policy::times::Operator;
use policy::{BlockId, Bytes, FormatId, LayerId, Machine, Paths, TierId};

/// See the module.
pub(super) struct Terms {
    fast: TierId,
    capacity: Bytes,
    operators: Operators,
    /// The kind of each block: blocks of one kind have the same choices.
    kind: Vec<u16>,
    kinds: Vec<Kind>,
    /// Nanoseconds a byte that a kernel reads, while every link of fast memory is busy.
    nanos_per_byte: f64,
    launch: f64,
}

/// Blocks that are alike.
#[derive(Clone, Debug)]
struct Kind {
    choices: Vec<Choice>,
    /// The format that takes longest to read.
    widest: FormatId,
    /// Room for all copies that a block of the running step may have at once.
    room: Bytes,
}

impl Terms {
    /// `None` where no link leads from the home copies to fast memory, some block may be read in no format, or blocks may be
    /// computed where they lie or made by recipes: what these take off the links at best is not worked out. Nor where caches grow and
    /// shrink in the room of blocks, or where blocks are timed together: then waves may take any time.
    pub(super) fn new(case: &Case) -> Option<Terms> {
        let machine = &case.machine;
        let in_place = machine.near.iter().any(|near| case.host_compute || !near.of_host);
        let times = machine.times_of(&case.model.name);
        let together = times.is_some_and(|times| times.of(Operator::Experts).is_some());
        if in_place
            || together
            || case.cache.is_some()
            || case.model.blocks.iter().any(|block| block.recipe.is_some())
        {
            return None;
        }
        let fast = machine.tiers_of(Class::Fast).next()?;
        let paths = Paths::new(machine);
        let ways = Ways::new(case, &paths, fast)?;
        let guard = Guard::new(case.guard.clone(), &case.model);
        let (mut known, mut kinds, mut kind) = (Vec::new(), Vec::new(), Vec::new());
        for (id, block) in (0..).map(BlockId).zip(&case.model.blocks) {
            let home = case.home.of(id);
            let alike = (block.kind, block.elements(), block.rows(), block.native, block.mixed, home);
            let place = known.iter().position(|&other| other == alike);
            if place.is_none() {
                known.push(alike);
                kinds.push(Kind::new(case, (&ways, fast), &guard, id, block)?);
            }
            kind.push(u16::try_from(place.unwrap_or(known.len() - 1)).ok()?);
        }
        Some(Terms {
            fast,
            capacity: case.budgets[fast.index()],
            operators: Operators::new(case.machine.clone(), case.model.clone()),
            kind,
            kinds,
            nanos_per_byte: 1e9 / slowest_read(machine, fast),
            launch: machine.accelerator.launch.0 as f64,
        })
    }

    /// The program without its uses.
    pub(super) fn program(&self, case: &Case) -> Program {
        let budget = case.guard.drift_budget;
        Program {
            kind: self.kind.clone(),
            kinds: self.kinds.iter().map(|kind| kind.choices.clone()).collect(),
            // A hair more than the guard's: its sums round.
            drift: case.model.layers.len() as f64 * budget * budget * (1.0 + 1e-9),
            ..Program::default()
        }
    }

    fn kind(&self, block: BlockId) -> &Kind {
        &self.kinds[usize::from(self.kind[block.index()])]
    }

    /// Whether a demand is computed in one wave: it fits beside all copies of its blocks and one move that cannot be
    /// given up.
    pub(super) fn fits_whole(&self, routed: &[Routed]) -> bool {
        let rooms = || routed.iter().map(|expert| self.kind(expert.block).room);
        let moving = self.kinds.iter().map(|kind| kind.room).max().unwrap_or_default();
        rooms().sum::<Bytes>() + moving <= self.capacity
    }

    /// The copies that take longest to read.
    pub(super) fn widest_reads(&self, routed: &[Routed]) -> Vec<Read> {
        let read = |expert: &Routed| Read {
            block: expert.block,
            form: Form { tier: self.fast, format: self.kind(expert.block).widest },
            tokens: expert.tokens,
        };
        routed.iter().map(read).collect()
    }

    /// What a part of a layer asks of the accelerator. The head is counted for every request of the batch.
    pub(super) fn kernel(&self, part: (LayerId, Part), batch: &[Slice], reads: &[Read]) -> Kernel {
        self.operators.kernel(part, batch, batch.len() as u64, reads)
    }

    /// The longest that a kernel can take, in nanoseconds: whatever the links do to the memory it reads.
    pub(super) fn longest(&self, kernel: Kernel) -> f64 {
        self.reading(kernel).max(kernel.operations.0 as f64) + self.launch + kernel.summing.0 as f64
    }

    /// The same, cut into as many waves as there are blocks.
    pub(super) fn longest_in_waves(&self, kernel: Kernel, blocks: usize) -> f64 {
        self.reading(kernel) + kernel.operations.0 as f64 + (self.launch + 2.0) * blocks.max(1) as f64
    }

    /// Rates and times are whole numbers, rounded; a nanosecond and a part in 10^7 make up for it.
    fn reading(&self, kernel: Kernel) -> f64 {
        kernel.bytes.0 as f64 * self.nanos_per_byte * (1.0 + 1e-7) + 1.0
    }
}

impl Kind {
    /// A block that is left out holds and reads nothing, and drifts by all of its output.
    fn new(
        case: &Case,
        (ways, fast): (&Ways<'_>, TierId),
        guard: &Guard,
        id: BlockId,
        block: &Block,
    ) -> Option<Kind> {
        let granularity = case.machine.tier(fast).granularity;
        let capacity = case.budgets[fast.index()].0.max(1) as f64;
        let mut formats = vec![block.native];
        formats.extend(case.encoded.iter().chain(&case.recode).filter(|&&format| format != block.native));
        let room = |format: FormatId| block.bytes(format).round_up(granularity);
        let share = |format: FormatId| room(format).0 as f64 / capacity;
        let on_host = !case.machine.host_codecs.is_empty();
        let crosses = |format: FormatId| on_host || format == block.native || case.encoded.contains(&format);
        let choice = |format: FormatId| {
            // Without a budget too: what has no weight at a gate drifts nothing.
            let error = guard.error(id, format).filter(|_| format.get().direct)?;
            // It may be made of any copy that has every bit.
            let made_of =
                || formats.iter().copied().filter(|&other| other == format || other.keeps(block.native));
            let loads = made_of()
                .filter(|&other| crosses(other))
                .map(|other| ways.least_time(case.home.of(id), block.bytes(other)));
            Some(Choice {
                held: made_of().map(share).fold(f64::INFINITY, f64::min),
                read: share(format),
                load: loads.fold(f64::INFINITY, f64::min),
                error: error.upper * error.upper,
            })
        };
        let mut choices: Vec<Choice> = formats.iter().filter_map(|&format| choice(format)).collect();
        if let Some(error) = guard.skip(id).filter(|_| guard.budget() > 0.0) {
            choices.push(Choice { held: 0.0, read: 0.0, load: 0.0, error: error.upper * error.upper });
        }
        let widest = formats.iter().copied().max_by_key(|&format| block.bytes(format))?;
        let room = formats.iter().map(|&format| room(format)).sum();
        (!choices.is_empty()).then_some(Kind { choices, widest, room })
    }
}

/// The rate at which a kernel reads fast memory while every link of it is busy, in bytes a second: a memory gives each flow
/// its share, and links cannot take more than they carry.
fn slowest_read(machine: &Machine, fast: TierId) -> f64 {
    let tier = machine.tier(fast);
    let read = tier.read.0 as f64;
    // What a unit of a link's rate takes of the memory's.
    let weight = |link: &Link| {
        let into = if link.to == fast { read / tier.write.0.max(1) as f64 } else { 0.0 };
        into + if link.from == fast { 1.0 } else { 0.0 }
    };
    let taken: f64 = machine.links.iter().map(|link| weight(link) * link.rate.peak().0 as f64).sum();
    let left = read - taken;
    // Where links alone could fill the memory, the kernel has a flow's share among those of all engines.
    let flows: f64 = machine.links.iter().map(|link| weight(link) * f64::from(link.engines)).sum();
    let share = read / (1.0 + flows);
    left.max(share).min(machine.accelerator.read.0 as f64).max(1.0)
}
