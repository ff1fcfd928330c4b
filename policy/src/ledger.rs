//! The ledger: which copies exist, which are under way, what they weigh, and which blocks may not be touched.
//!
//! Every change of a block's copies goes through here, so that a move outside the table of edges, a copy beyond a
//! tier's capacity, or the loss of a home copy cannot be built.

mod usage;

pub use self::usage::Usage;

use crate::bits::{ones, set};
use crate::event::{Form, MoveClass, Source};
use crate::flight::Flight;
use crate::format::FormatId;
use crate::forms::{Forms, MAX_FORMS};
use crate::homes::Homes;
use crate::id::{BlockId, LayerId, MoveId, TierId};
use crate::machine::Machine;
use crate::model::{Block, Layer, Model};
use crate::refused::Refused;
use crate::sizes::Sizes;
use crate::state::{State, leads};
use crate::state_time::StateTime;
use crate::under_way::UnderWay;
use crate::units::{Bytes, Time};
use std::sync::Arc;

#[derive(Clone, Copy, Debug)]
struct Entry {
    copies: u64,
    flight: Option<MoveId>,
    pins: u32,
    /// The forms in its native format.
    native: u64,
    layer: LayerId,
    index: u32,
    /// As of the last change.
    state: State,
}

fn entry(id: u32, &Block { layer, native, .. }: &Block, model: &Model, forms: &Forms) -> Entry {
    // A block's number in its layer is that of the whole model, of which this may be a part.
    let index = id - model.layer(layer).first_block.0;
    let native = forms.of_format[native.0 as usize];
    Entry { copies: 0, flight: None, pins: 0, native, layer, index, state: State::Recomputable }
}

/// A layer's blocks taken together.
#[derive(Clone, Debug)]
struct Row {
    /// Changes of their copies, moves and holds.
    version: u64,
    /// A bit for each whose fast copies may be given up.
    idle: Vec<u64>,
    /// A bit for each that has no fast copy and no move under way.
    absent: Vec<u64>,
}

impl Row {
    fn new(layer: &Layer) -> Row {
        let none = vec![0; layer.blocks.div_ceil(u64::BITS) as usize];
        Row { version: 0, idle: none.clone(), absent: none }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Ledger {
    model: Arc<Model>,
    sizes: Sizes,
    forms: Forms,
    /// For each tier, what a copy takes in it.
    footprints: Vec<Sizes>,
    entries: Vec<Entry>,
    layers: Vec<Row>,
    flights: UnderWay<Flight>,
    /// Copies that processors beside their memory read, which stay until these are done.
    pub(crate) read_in_place: Vec<(BlockId, Form)>,
    usage: Vec<Usage>,
    next_move: u64,
    now: Time,
    states: StateTime,
    /// Blocks whose copies or moves have changed, where somebody asks for them.
    changed: Option<Vec<BlockId>>,
}

impl Ledger {
    /// A ledger in which every block has its home copies, or its recipe, and nothing else. `budgets` gives each tier the bytes that
    /// managed blocks may take; `home` and `encoded` say in which forms every block exists from the start.
    ///
    /// # Errors
    /// [`Refused::NoRoom`] where the home copies do not fit their tier, [`Refused::UnknownForm`] where the run has
    /// more than 64 forms, the bits of a word.
    pub fn new(
        model: Arc<Model>,
        machine: &Machine,
        formats: &[FormatId],
        budgets: &[Bytes],
        home: &Homes,
        encoded: &[FormatId],
    ) -> Result<Ledger, Refused> {
        let forms = Forms::new(machine, formats);
        if forms.all.len() > MAX_FORMS {
            return Err(Refused::UnknownForm(forms.all[MAX_FORMS]));
        }
        let sizes = Sizes::new(&model);
        let mut ledger = Ledger {
            footprints: machine.tiers.iter().map(|tier| sizes.rounded_up(tier.granularity)).collect(),
            sizes,
            entries: (0..).zip(&model.blocks).map(|(id, block)| entry(id, block, &model, &forms)).collect(),
            forms,
            layers: model.layers.iter().map(Row::new).collect(),
            flights: UnderWay::default(),
            usage: budgets.iter().map(|&capacity| Usage { capacity, ..Usage::default() }).collect(),
            read_in_place: Vec::new(),
            next_move: 0,
            now: Time(0),
            states: StateTime::new(),
            changed: None,
            model,
        };
        for block in (0..ledger.entries.len() as u32).map(BlockId) {
            let formats: Vec<FormatId> = ledger.model.block(block).home_formats(encoded).collect();
            for format in formats {
                let form = Form { tier: home.of(block), format };
                ledger.take(form, block)?;
                ledger.entries[block.index()].copies |= ledger.forms.bit(form)?;
            }
            let Entry { layer, index, .. } = ledger.entries[block.index()];
            let absent = !ledger.is_fast(block);
            set(&mut ledger.layers[layer.index()].absent, index, absent);
            let state = ledger.worked_out(block);
            ledger.entries[block.index()].state = state;
            ledger.states.begin(state, ledger.native_bytes(block));
        }
        Ok(ledger)
    }

    /// Moves the ledger's clock; changes are booked at this instant.
    pub fn advance(&mut self, now: Time) {
        self.now = now;
    }

    /// The bytes a copy takes in its tier, allocation granularity included.
    pub fn footprint(&self, block: BlockId, form: Form) -> Bytes {
        self.footprints[form.tier.index()].bytes(block, form.format)
    }

    /// Bytes that can still be taken in a tier.
    pub fn free(&self, tier: TierId) -> Bytes {
        let usage = &self.usage[tier.index()];
        usage.capacity.saturating_sub(usage.used)
    }

    /// A tier's bytes.
    pub fn usage(&self, tier: TierId) -> &Usage {
        &self.usage[tier.index()]
    }

    /// Gives a tier another budget; it may be below what is taken now, and then nothing new fits.
    pub fn set_capacity(&mut self, tier: TierId, capacity: Bytes) {
        self.usage[tier.index()].capacity = capacity;
    }

    /// The state of a block.
    #[inline]
    pub fn state(&self, block: BlockId) -> State {
        self.entries[block.index()].state
    }

    fn worked_out(&self, block: BlockId) -> State {
        let entry = &self.entries[block.index()];
        let fast = entry.copies & self.forms.fast;
        if fast & entry.native != 0 {
            State::Full
        } else if fast & self.forms.direct != 0 {
            State::Reduced
        } else if fast != 0 {
            State::Compressed
        } else if entry.flight.is_some_and(|id| self.lands_fast(id)) {
            State::InFlight
        } else if entry.copies & self.forms.staged != 0 {
            State::Staged
        } else if entry.copies & self.forms.cold != 0 {
            State::Cold
        } else {
            State::Recomputable
        }
    }

    /// Whether a block has this copy, complete.
    pub fn has(&self, block: BlockId, form: Form) -> bool {
        self.forms.bit(form).is_ok_and(|bit| self.entries[block.index()].copies & bit != 0)
    }

    /// Whether a block has any fast copy.
    #[inline]
    pub fn is_fast(&self, block: BlockId) -> bool {
        self.entries[block.index()].copies & self.forms.fast != 0
    }

    /// The copies of a block, fast tiers and native format first.
    pub fn copies(&self, block: BlockId) -> impl Iterator<Item = Form> + '_ {
        let mut left = self.entries[block.index()].copies;
        std::iter::from_fn(move || {
            let form = self.forms.first(left)?;
            left &= left - 1;
            Some(form)
        })
    }

    /// The fast copies of a block.
    pub fn fast_copies(&self, block: BlockId) -> impl Iterator<Item = Form> + '_ {
        let mut left = self.entries[block.index()].copies & self.forms.fast;
        std::iter::from_fn(move || {
            let form = self.forms.first(left)?;
            left &= left - 1;
            Some(form)
        })
    }

    /// The copy a kernel reads without anything lost: the native one in fast memory.
    pub fn full_copy(&self, block: BlockId) -> Option<Form> {
        let entry = &self.entries[block.index()];
        self.forms.first(entry.copies & self.forms.fast & entry.native)
    }

    /// Whether a move to a block is under way.
    #[inline]
    pub fn is_moving(&self, block: BlockId) -> bool {
        self.entries[block.index()].flight.is_some()
    }

    /// The move under way to a block.
    pub fn flight_of(&self, block: BlockId) -> Option<(MoveId, &Flight)> {
        let id = self.entries[block.index()].flight?;
        self.flight(id).map(|flight| (id, flight))
    }

    /// A move under way.
    pub fn flight(&self, id: MoveId) -> Option<&Flight> {
        self.flights.get(id)
    }

    /// Whether all blocks are in fast memory in full precision.
    pub fn is_all_resident(&self) -> bool {
        self.states.all_in(State::Full)
    }

    /// All moves under way, oldest first.
    pub fn flights(&self) -> impl Iterator<Item = (MoveId, &Flight)> {
        self.flights.iter()
    }

    /// Holds a block in fast memory until it is unpinned.
    pub fn pin(&mut self, block: BlockId) {
        let entry = &mut self.entries[block.index()];
        entry.pins += 1;
        let row = &mut self.layers[entry.layer.index()];
        row.version += 1;
        set(&mut row.idle, entry.index, false);
    }

    /// Takes one hold back.
    pub fn unpin(&mut self, block: BlockId) {
        let entry = &mut self.entries[block.index()];
        debug_assert!(entry.pins > 0);
        entry.pins = entry.pins.saturating_sub(1);
        let row = &mut self.layers[entry.layer.index()];
        row.version += 1;
        let fast = entry.copies & self.forms.fast != 0;
        set(&mut row.idle, entry.index, fast && entry.flight.is_none() && entry.pins == 0);
    }

    /// Whether the running step needs the block.
    #[inline]
    pub fn is_pinned(&self, block: BlockId) -> bool {
        self.entries[block.index()].pins > 0
    }

    /// Whether a block's fast copies may be given up: it has some, and is neither held nor under way.
    #[inline]
    pub fn is_idle(&self, block: BlockId) -> bool {
        let entry = &self.entries[block.index()];
        entry.copies & self.forms.fast != 0 && entry.pins == 0 && entry.flight.is_none()
    }

    /// The blocks of a layer whose fast copies may be given up: neither held nor under way.
    pub fn idle(&self, layer: LayerId) -> impl Iterator<Item = BlockId> + '_ {
        let first = self.model.layer(layer).first_block.0;
        let words = self.layers[layer.index()].idle.iter().zip((first..).step_by(u64::BITS as usize));
        words.flat_map(|(&word, first)| ones(word).map(move |index| BlockId(first + index)))
    }

    /// A bit for each block of a layer, by its index: whether it has no fast copy and no move under way.
    #[inline]
    pub fn absent(&self, layer: LayerId) -> &[u64] {
        &self.layers[layer.index()].absent
    }

    /// Changes so far of the copies, moves and holds of a layer's blocks: what was worked out from them stands as long
    /// as this number does.
    #[inline]
    pub fn version(&self, layer: LayerId) -> u64 {
        self.layers[layer.index()].version
    }

    /// The copies of a block as one word: what was worked out from them stands as long as it does.
    #[inline]
    pub fn copies_word(&self, block: BlockId) -> u64 {
        self.entries[block.index()].copies
    }

    /// Starts a move: takes its room and books the change of state.
    ///
    /// # Errors
    /// The source is missing, a destination is there already or another move to the block is under way, there is
    /// no room, or the edge is not in the table.
    pub fn begin(&mut self, flight: Flight) -> Result<MoveId, Refused> {
        let Flight { block, from, to, keep, .. } = flight;
        let there = match from {
            Source::Copy(form) => self.has(block, form),
            Source::Recipe => self.has_recipe(block),
        };
        if !there || self.has(block, to) || keep.is_some_and(|keep| self.has(block, keep)) {
            return Err(Refused::NoSuchCopy { block, form: to });
        }
        if self.entries[block.index()].flight.is_some() {
            return Err(Refused::InUse { block, form: to });
        }
        self.take(to, block)?;
        if let Some(Err(refused)) = keep.map(|keep| self.take(keep, block)) {
            self.release(to, block);
            return Err(refused);
        }
        let id = MoveId(self.next_move);
        self.next_move += 1;
        self.flights.insert(id, flight);
        self.entries[block.index()].flight = Some(id);
        self.book(block)?;
        Ok(id)
    }

    /// Notes that what is left of a move, at most so much of it, is handed to the link: the move as it was, and the bytes.
    ///
    /// # Errors
    /// The move is not under way.
    pub fn send(&mut self, id: MoveId, most: Bytes) -> Result<(Flight, Bytes), Refused> {
        let flight = self.flight_mut(id)?;
        let (before, bytes) = (*flight, flight.total.saturating_sub(flight.sent).min(most));
        flight.sent += bytes;
        Ok((before, bytes))
    }

    /// Changes why a move is made.
    ///
    /// # Errors
    /// The move is not under way.
    pub fn reclass(&mut self, id: MoveId, class: MoveClass) -> Result<(), Refused> {
        self.flight_mut(id)?.class = class;
        Ok(())
    }

    /// Notes that everything sent has arrived. The copy is published when nothing is left to send: then its form is
    /// returned.
    ///
    /// # Errors
    /// The move is not under way, or the edge is not in the table.
    pub fn arrive(&mut self, id: MoveId, bytes: Bytes) -> Result<Option<Form>, Refused> {
        let flight = self.flight_mut(id)?;
        flight.arrived += bytes;
        if flight.arrived < flight.total {
            return Ok(None);
        }
        let Flight { block, to, keep, .. } = *flight;
        let kept = keep.map_or(Ok(0), |keep| self.forms.bit(keep))?;
        let bit = self.forms.bit(to)? | kept;
        self.flights.remove(id);
        let entry = &mut self.entries[block.index()];
        entry.flight = None;
        entry.copies |= bit;
        self.book(block)?;
        Ok(Some(to))
    }

    /// Gives a move up: its room is free and the block is back where it was.
    ///
    /// # Errors
    /// The move is not under way, or the edge is not in the table.
    pub fn cancel(&mut self, id: MoveId) -> Result<Flight, Refused> {
        let flight = self.flights.remove(id).ok_or(Refused::NoSuchMove(id))?;
        self.entries[flight.block.index()].flight = None;
        self.release(flight.to, flight.block);
        if let Some(keep) = flight.keep {
            self.release(keep, flight.block);
        }
        self.book(flight.block)?;
        Ok(flight)
    }

    /// Gives a copy up.
    ///
    /// # Errors
    /// The copy is missing, is the last one of a block without a recipe, is read by a move, or is a fast copy of a pinned block with no other
    /// fast copy; or the edge is not in the table.
    pub fn drop_copy(&mut self, block: BlockId, form: Form) -> Result<(), Refused> {
        let bit = self.forms.bit(form)?;
        let entry = self.entries[block.index()];
        if entry.copies & bit == 0 {
            return Err(Refused::NoSuchCopy { block, form });
        }
        let left = entry.copies & !bit;
        let read = self.flight_of(block).is_some_and(|(_, flight)| flight.from == Source::Copy(form))
            || self.read_in_place.contains(&(block, form));
        let lost = left == 0 && !self.has_recipe(block);
        if lost || read || (entry.pins > 0 && bit & self.forms.fast != 0) {
            return Err(Refused::InUse { block, form });
        }
        self.entries[block.index()].copies = left;
        self.release(form, block);
        self.usage[form.tier.index()].evictions += 1;
        self.book(block)
    }

    /// The time that bytes have spent in each state, and the edges taken.
    pub fn states(&self) -> &StateTime {
        &self.states
    }

    /// From here on, keeps which blocks change.
    pub(crate) fn note_changes(&mut self) {
        self.changed = Some(Vec::new());
    }

    /// The blocks whose copies or moves have changed since the last time, in order, some of them more than once.
    pub(crate) fn take_changed(&mut self) -> Vec<BlockId> {
        self.changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Notes that a block's copies or move have changed.
    fn touch(&mut self, block: BlockId) {
        if let Some(changed) = &mut self.changed {
            changed.push(block);
        }
        let entry = &self.entries[block.index()];
        let (fast, still) = (entry.copies & self.forms.fast != 0, entry.flight.is_none());
        let row = &mut self.layers[entry.layer.index()];
        row.version += 1;
        set(&mut row.idle, entry.index, fast && still && entry.pins == 0);
        set(&mut row.absent, entry.index, !fast && still);
    }

    fn has_recipe(&self, block: BlockId) -> bool {
        self.model.block(block).recipe.is_some()
    }

    fn native_bytes(&self, block: BlockId) -> u64 {
        self.sizes.bytes(block, self.model.block(block).native).0
    }

    fn lands_fast(&self, id: MoveId) -> bool {
        self.flight(id).is_some_and(|f| self.forms.bit(f.to).is_ok_and(|bit| bit & self.forms.fast != 0))
    }

    fn flight_mut(&mut self, id: MoveId) -> Result<&mut Flight, Refused> {
        self.flights.get_mut(id).ok_or(Refused::NoSuchMove(id))
    }

    fn take(&mut self, form: Form, block: BlockId) -> Result<(), Refused> {
        self.forms.bit(form)?;
        let wanted = self.footprint(block, form);
        let free = self.free(form.tier);
        if wanted > free {
            return Err(Refused::NoRoom { tier: form.tier, free, wanted });
        }
        let usage = &mut self.usage[form.tier.index()];
        usage.used += wanted;
        usage.peak = usage.peak.max(usage.used);
        Ok(())
    }

    fn release(&mut self, form: Form, block: BlockId) {
        let bytes = self.footprint(block, form);
        self.usage[form.tier.index()].used -= bytes;
    }

    fn book(&mut self, block: BlockId) -> Result<(), Refused> {
        self.touch(block);
        let to = self.worked_out(block);
        let from = std::mem::replace(&mut self.entries[block.index()].state, to);
        if from == to {
            return Ok(());
        }
        if !leads(from, to, self.has_recipe(block)) {
            return Err(Refused::NoSuchEdge { block, from, to });
        }
        self.states.transit(from, to, self.native_bytes(block), self.now);
        Ok(())
    }
}
