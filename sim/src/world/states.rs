//! Moves of recurrent states in virtual time: coded by the accelerator on its side, carried whole over the links that blocks
//! move on too.

use super::{Tick, World, WorldError};
use crate::fabric::NoPath;
use crate::queue::Rank;
use policy::event::StateMove;
use policy::{Bytes, MoveId, Time};

/// A move of states under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct MovingState(StateMove);

impl MovingState {
    pub(super) fn id(&self) -> MoveId {
        self.0.id
    }
}

impl World {
    /// Starts a move of states.
    pub(super) fn begin_state(&mut self, state: StateMove) -> Result<(), WorldError> {
        let StateMove { id, from, to, .. } = state;
        if from != to && self.paths.between(from, to).is_none() {
            return Err(NoPath { from, to }.into());
        }
        self.states.push(MovingState(state));
        if from == to {
            let end = self.code_state(self.now, &state);
            self.queue.push(end, Rank::Transfer, Tick::StateMoved(id));
        } else if from == self.fast && state.served > Bytes::ZERO {
            let end = self.code_state(self.now, &state);
            self.queue.push(end, Rank::Completion, Tick::StateCoded(id));
        } else {
            self.state_coded(id)?;
        }
        Ok(())
    }

    /// States are as they cross the links: off they go.
    pub(super) fn state_coded(&mut self, id: MoveId) -> Result<(), WorldError> {
        let Some(&MovingState(StateMove { from, to, bytes, .. })) = self.state(id) else { return Ok(()) };
        self.share();
        Ok(self.fabric.submit(self.now, id, from, to, bytes)?)
    }

    /// The last byte of a move has left its links, if it is one of states: it arrives a latency later, and is expanded where it is
    /// served.
    pub(super) fn state_left(&mut self, id: MoveId) -> bool {
        let Some(&MovingState(state)) = self.state(id) else { return false };
        let StateMove { from, to, bytes, served, .. } = state;
        self.memory.carried(from, to, bytes);
        let mut at = self.now + self.latency(from, to);
        if to == self.fast && served > Bytes::ZERO {
            at = self.code_state(at, &state);
        }
        self.queue.push(at, Rank::Transfer, Tick::StateMoved(id));
        true
    }

    fn state(&self, id: MoveId) -> Option<&MovingState> {
        self.states.iter().find(|moving| moving.id() == id)
    }

    /// Has the accelerator read one form of the states and write the other from `ready` on; returns when that is done.
    fn code_state(&mut self, ready: Time, state: &StateMove) -> Time {
        let processor = self.machine.accelerator;
        let coder = &mut self.coders[0];
        *coder = ready.max(*coder) + processor.launch + processor.read.time_for(state.bytes + state.served);
        *coder
    }
}
