//! How long bytes have been in each state, and how often each edge was taken.

use crate::state::{STATES, State};
use crate::units::Time;

/// See the module. Bytes are those of the native format, so that they add up to the model whatever the copies.
#[derive(Clone, Debug)]
pub struct StateTime {
    bytes: [u64; STATES.len()],
    byte_nanos: [u128; STATES.len()],
    since: [Time; STATES.len()],
    transitions: [[u64; STATES.len()]; STATES.len()],
}

impl StateTime {
    /// Nothing in any state.
    pub(crate) fn new() -> StateTime {
        StateTime {
            bytes: [0; STATES.len()],
            byte_nanos: [0; STATES.len()],
            since: [Time(0); STATES.len()],
            transitions: [[0; STATES.len()]; STATES.len()],
        }
    }

    /// Bytes that are in a state from the start.
    pub(crate) fn begin(&mut self, state: State, bytes: u64) {
        self.bytes[state as usize] += bytes;
    }

    /// Whether all bytes are in one state.
    pub(crate) fn all_in(&self, state: State) -> bool {
        (0..).zip(&self.bytes).all(|(index, &bytes)| bytes == 0 || index == state as usize)
    }

    /// Bytes that are in a state from now on.
    pub(crate) fn enter(&mut self, state: State, bytes: u64, now: Time) {
        self.hold(state, now);
        self.bytes[state as usize] += bytes;
    }

    /// Bytes that are in a state until now.
    pub(crate) fn leave(&mut self, state: State, bytes: u64, now: Time) {
        self.hold(state, now);
        self.bytes[state as usize] -= bytes;
    }

    /// Books what a state has held until now.
    fn hold(&mut self, state: State, now: Time) {
        let index = state as usize;
        let held = now.since(self.since[index]);
        self.byte_nanos[index] += u128::from(self.bytes[index]) * u128::from(held.0);
        self.since[index] = now;
    }

    /// Bytes go from one state to another.
    pub(crate) fn transit(&mut self, from: State, to: State, bytes: u64, now: Time) {
        self.transitions[from as usize][to as usize] += 1;
        self.hold(from, now);
        self.hold(to, now);
        self.bytes[from as usize] -= bytes;
        self.bytes[to as usize] += bytes;
    }

    /// Byte-seconds each state has held up to `end`.
    pub fn byte_seconds(&self, end: Time) -> [f64; STATES.len()] {
        std::array::from_fn(|index| {
            let open = self.bytes[index] as u128 * end.since(self.since[index]).0 as u128;
            (self.byte_nanos[index] + open) as f64 * 1e-9
        })
    }

    /// How often each edge was taken: `[from][to]`.
    pub fn transitions(&self) -> &[[u64; STATES.len()]; STATES.len()] {
        &self.transitions
    }
}
