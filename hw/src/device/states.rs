//! Checkpoints on a device: a pool's memory in each tier that keeps them, and beside the pools fast memory for the states of requests
//! that are on their way to or from one. A request's own states are made up, as everything of requests is here: what a move reads of
//! one is written when the move begins, as computing would have left it.

use super::Device;
use super::moves::{Flight, Piece, What};
use crate::arena::{Arena, SlotId};
use crate::cargo::Cargo;
use crate::content::{Contents, StateBytes};
use crate::engine::{Change, Engine, Haul, JobError};
use crate::refusal::DeviceError;
use crate::region::Region;
use policy::event::{StateEnd, StateForm};
use policy::machine::{Class, Machine, Tier};
use policy::state_format::StateFormat;
use policy::units::Bytes;
use policy::{CheckpointId, MoveId, TierId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// What a device sets aside for checkpoints.
#[derive(Clone, Debug, Default)]
pub struct StateRoom {
    /// Bytes of each tier that keeps them.
    pub pools: Vec<(TierId, Bytes)>,
    /// States of requests that are on their way at once, at most.
    pub staged: u64,
}

/// A copy that is kept.
struct Kept {
    slot: SlotId,
    what: StateBytes,
    published: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct States {
    pools: BTreeMap<TierId, Arena>,
    kept: BTreeMap<(CheckpointId, TierId), Kept>,
    /// Fast memory for states of requests, and what each move has of it.
    staging: Option<Arena>,
    staged: BTreeMap<MoveId, SlotId>,
    peaks: BTreeMap<TierId, Bytes>,
}

impl States {
    fn new(
        engine: &dyn Engine,
        machine: &Machine,
        served: Bytes,
        room: &StateRoom,
    ) -> Result<States, DeviceError> {
        let fast = machine.tiers_of(Class::Fast).next().map(|fast| machine.tier(fast));
        let staged = |tier: &Tier| Bytes(served.round_up(tier.granularity).0.saturating_mul(room.staged));
        let mut states = States::default();
        for &(id, bytes) in &room.pools {
            let tier = machine.tier(id);
            // A copy that is coded where it is keeps its old place until the new one is made.
            let room = bytes + served.round_up(tier.granularity);
            states.pools.insert(id, engine.arena(tier, room.round_up(tier.granularity))?);
        }
        states.staging = fast.map(|tier| engine.arena(tier, staged(tier))).transpose()?;
        Ok(states)
    }

    fn pool(&mut self, tier: TierId) -> Result<&mut Arena, DeviceError> {
        self.pools.get_mut(&tier).ok_or(DeviceError::NoPool { tier })
    }

    fn allocate(&mut self, tier: TierId, bytes: Bytes) -> Result<(SlotId, Arc<Region>), DeviceError> {
        let pool = self.pool(tier)?;
        let slot = pool.allocate(bytes)?;
        let (region, held) = (pool.region(slot)?, pool.held());
        let peak = self.peaks.entry(tier).or_default();
        *peak = held.max(*peak);
        Ok((slot, region))
    }

    fn stage(&mut self, id: MoveId, bytes: Bytes) -> Result<Arc<Region>, DeviceError> {
        let staging = self.staging.as_mut().ok_or(DeviceError::NoStates)?;
        let slot = staging.allocate(bytes)?;
        self.staged.insert(id, slot);
        Ok(staging.region(slot)?)
    }

    /// The move no longer needs the states of its request.
    fn unstage(&mut self, id: MoveId) -> Result<(), DeviceError> {
        match (self.staged.remove(&id), &mut self.staging) {
            (Some(slot), Some(staging)) => Ok(staging.free(slot)?),
            _ => Ok(()),
        }
    }

    fn readable(
        &self,
        checkpoint: CheckpointId,
        form: StateForm,
    ) -> Result<(StateBytes, Arc<Region>), DeviceError> {
        let absent = DeviceError::NoCheckpoint { checkpoint: checkpoint.0, tier: form.tier };
        let kept = self.kept.get(&(checkpoint, form.tier));
        let kept = kept.filter(|kept| kept.published && kept.what.format() == form.format).ok_or(absent)?;
        let pool = self.pools.get(&form.tier).ok_or(DeviceError::NoPool { tier: form.tier })?;
        Ok((kept.what, pool.region(kept.slot)?))
    }

    /// A move has made its copy.
    pub(super) fn publish(
        &mut self,
        id: MoveId,
        checkpoint: CheckpointId,
        to: StateEnd,
    ) -> Result<(), DeviceError> {
        if let StateEnd::Kept(form) = to
            && let Some(kept) = self.kept.get_mut(&(checkpoint, form.tier))
        {
            kept.published = true;
        }
        self.unstage(id)
    }

    /// A move ends without its copy.
    pub(super) fn give_up(
        &mut self,
        id: MoveId,
        checkpoint: CheckpointId,
        to: StateEnd,
    ) -> Result<(), DeviceError> {
        if let StateEnd::Kept(form) = to {
            self.free(checkpoint, form.tier)?;
        }
        self.unstage(id)
    }

    fn free(&mut self, checkpoint: CheckpointId, tier: TierId) -> Result<(), DeviceError> {
        match self.kept.remove(&(checkpoint, tier)) {
            Some(kept) => Ok(self.pool(tier)?.free(kept.slot)?),
            None => Ok(()),
        }
    }
}

impl Device {
    /// Sets aside memory for checkpoints too.
    ///
    /// # Errors
    /// The machine has not the memory, or states of the model cannot be made up.
    pub fn keeping(
        self,
        engine: &dyn Engine,
        machine: &Machine,
        room: &StateRoom,
    ) -> Result<Device, DeviceError> {
        self.contents.has_states().map_err(|source| DeviceError::States { source })?;
        let served = self.contents.model().state_bytes(StateFormat::SERVED);
        let fast = machine.tiers_of(Class::Fast).next().unwrap_or_default();
        let of = |wanted: fn(bool) -> bool| -> Bytes {
            room.pools.iter().filter(|(tier, _)| wanted(*tier == fast)).map(|(_, bytes)| *bytes).sum()
        };
        let staged = Bytes(served.0.saturating_mul(room.staged));
        let elsewhere = of(|is_fast| !is_fast);
        engine.room([of(|is_fast| is_fast) + staged, elsewhere, Bytes::ZERO])?;
        let states = States::new(engine, machine, served, room)?;
        Ok(Device { states, ..self })
    }

    /// The tier that compute reads.
    pub fn fast(&self) -> TierId {
        self.fast
    }

    /// The checkpoints that can be restored, each with the form of every copy.
    pub fn checkpoints(&self) -> BTreeSet<(CheckpointId, StateForm)> {
        let published = self.states.kept.iter().filter(|(_, kept)| kept.published);
        let named = published.map(|(&(id, tier), kept)| (id, StateForm { tier, format: kept.what.format() }));
        named.collect()
    }

    /// The most bytes that checkpoints took of each tier.
    pub fn checkpoint_peaks(&self) -> &BTreeMap<TierId, Bytes> {
        &self.states.peaks
    }

    /// Checks the first chunk of a move of states and takes the memory of what it makes; one that is refused leaves nothing behind.
    pub(super) fn open_state(
        &mut self,
        piece: &Piece,
        checkpoint: CheckpointId,
        ends: (StateEnd, StateEnd),
    ) -> Result<Flight, DeviceError> {
        let opened = self.flight_of_states(piece, checkpoint, ends);
        if opened.is_err() {
            self.states.unstage(piece.id())?;
        }
        opened
    }

    fn flight_of_states(
        &mut self,
        piece: &Piece,
        checkpoint: CheckpointId,
        (from, to): (StateEnd, StateEnd),
    ) -> Result<Flight, DeviceError> {
        let id = piece.id();
        let model = self.contents.model();
        let size = |format: StateFormat| model.state_bytes(format);
        let target = to.form(self.fast);
        let (served, made) = (size(StateFormat::SERVED), size(target.format));
        let (before, source) = match from {
            StateEnd::Kept(form) => self.states.readable(checkpoint, form)?,
            StateEnd::Request => {
                let what = StateBytes::Coded(StateFormat::SERVED);
                let bytes = states_of(&self.contents, checkpoint, what)?;
                let region = self.states.stage(id, served)?;
                region.write_at(0, &bytes)?;
                (what, region)
            }
        };
        let what = made_of(id, before, to)?;
        let (change, total) = match to {
            _ if before.format() == target.format => (Change::Nowhere, made),
            StateEnd::Kept(_) => (Change::BeforeLink, made),
            StateEnd::Request => (Change::AfterLink, size(before.format())),
        };
        let target = match to {
            StateEnd::Request => self.states.stage(id, served)?,
            StateEnd::Kept(form) => {
                // A change of format where a copy is puts the new one in its place.
                if matches!(from, StateEnd::Kept(there) if there.tier == form.tier) {
                    self.states.free(checkpoint, form.tier)?;
                }
                if self.states.kept.contains_key(&(checkpoint, form.tier)) {
                    return Err(DeviceError::Chunk {
                        id: id.0,
                        why: "the checkpoint has a copy there already",
                    });
                }
                let (slot, region) = self.states.allocate(form.tier, made)?;
                self.states.kept.insert((checkpoint, form.tier), Kept { slot, what, published: false });
                region
            }
        };
        let cargo = Cargo::State { checkpoint, before, to: what };
        let haul =
            Haul { id, cargo, change, source, origin: None, recipe: None, target, staging: Mutex::default() };
        Ok(Flight::new(piece, haul, total))
    }

    /// Frees a copy of a checkpoint.
    pub(super) fn drop_state(&mut self, checkpoint: CheckpointId, tier: TierId) -> Result<(), DeviceError> {
        let kept = self.states.kept.get(&(checkpoint, tier));
        if kept.is_none_or(|kept| !kept.published) {
            return Err(DeviceError::NoCheckpoint { checkpoint: checkpoint.0, tier });
        }
        let reads = |flight: &&Flight| match flight.what {
            What::State(of, StateEnd::Kept(form), _) => of == checkpoint && form.tier == tier,
            _ => false,
        };
        if let Some(flight) = self.moves.values().find(reads) {
            return Err(DeviceError::CheckpointInUse { checkpoint: checkpoint.0, tier, id: flight.id.0 });
        }
        self.states.free(checkpoint, tier)?;
        self.totals.drops += 1;
        Ok(())
    }

    /// Compares every kept copy with what it must be.
    pub(super) fn audit_states(&mut self) -> Result<(), DeviceError> {
        let published = self.states.kept.iter().filter(|(_, kept)| kept.published);
        let all: Vec<_> = published.map(|(&(id, tier), kept)| (id, tier, kept.what)).collect();
        for (checkpoint, tier, what) in all {
            let (_, region) = self.states.readable(checkpoint, StateForm { tier, format: what.format() })?;
            let cargo = Cargo::State { checkpoint, before: what, to: what };
            cargo.check(&self.contents, &region).map_err(|error| self.count(error))?;
            self.totals.verified_copies += 1;
        }
        Ok(())
    }
}

/// What the bytes are that a move makes: a state is coded once, from what was computed.
fn made_of(id: MoveId, before: StateBytes, to: StateEnd) -> Result<StateBytes, DeviceError> {
    let why = "its states have lost bits, and may only be expanded for a request";
    match (before, to) {
        (StateBytes::Coded(format), StateEnd::Request) => Ok(StateBytes::Restored(format)),
        (StateBytes::Coded(format), StateEnd::Kept(form)) if format == form.format => Ok(before),
        (StateBytes::Coded(format), StateEnd::Kept(form)) if format.is_exact() => {
            Ok(StateBytes::Coded(form.format))
        }
        _ => Err(DeviceError::Chunk { id: id.0, why }),
    }
}

fn states_of(
    contents: &Contents,
    checkpoint: CheckpointId,
    what: StateBytes,
) -> Result<Vec<u8>, DeviceError> {
    let failed = |source| JobError::State { checkpoint: checkpoint.0, source };
    Ok(contents.state_bytes(checkpoint, what).map_err(failed)?)
}
