//! The seven states of a block and the one table of legal edges between them.

use serde::{Deserialize, Serialize};

/// What the controller says of a block, by its best usable copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum State {
    /// A fast copy in the native format.
    #[serde(rename = "S1")]
    Full,
    /// A fast copy that kernels read directly, in fewer bits.
    #[serde(rename = "S2")]
    Reduced,
    /// A fast copy that must be expanded first.
    #[serde(rename = "S3")]
    Compressed,
    /// A copy in a staged tier.
    #[serde(rename = "S4")]
    Staged,
    /// A copy in a cold tier.
    #[serde(rename = "S5")]
    Cold,
    /// No fast copy yet; one is under way.
    #[serde(rename = "S6")]
    InFlight,
    /// No copy, but a recipe.
    #[serde(rename = "S7")]
    Recomputable,
}

/// All states, in order of their numbers.
pub const STATES: [State; 7] = [
    State::Full,
    State::Reduced,
    State::Compressed,
    State::Staged,
    State::Cold,
    State::InFlight,
    State::Recomputable,
];

impl State {
    /// `S1` to `S7`.
    pub fn code(self) -> &'static str {
        ["S1", "S2", "S3", "S4", "S5", "S6", "S7"][self as usize]
    }

    /// Whether a fast copy is there.
    pub fn is_fast(self) -> bool {
        matches!(self, State::Full | State::Reduced | State::Compressed)
    }
}

/// What an edge is called, and whether it asks for a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// What happens on it.
    pub name: &'static str,
    /// Legal only for a block that can be made again.
    pub needs_recipe: bool,
}

const fn edge(from: State, to: State, name: &'static str) -> Edge {
    Edge { from, to, name, needs_recipe: false }
}

const fn forget(from: State) -> Edge {
    Edge { from, to: State::Recomputable, name: "forget", needs_recipe: true }
}

/// Every legal edge. A change of state outside this table is refused before anything moves.
pub const EDGES: &[Edge] = &[
    edge(State::Full, State::Reduced, "reduce"),
    edge(State::Full, State::Compressed, "compress"),
    edge(State::Reduced, State::Compressed, "compress"),
    edge(State::Full, State::Staged, "demote"),
    edge(State::Full, State::Cold, "demote"),
    edge(State::Reduced, State::Staged, "demote"),
    edge(State::Reduced, State::Cold, "demote"),
    edge(State::Compressed, State::Staged, "demote"),
    edge(State::Compressed, State::Cold, "demote"),
    edge(State::Compressed, State::Full, "expand"),
    edge(State::Compressed, State::Reduced, "expand"),
    edge(State::Reduced, State::Full, "publish"),
    edge(State::Staged, State::Cold, "spill"),
    edge(State::Cold, State::Staged, "stage"),
    edge(State::Staged, State::InFlight, "promote"),
    edge(State::Cold, State::InFlight, "promote"),
    edge(State::Recomputable, State::InFlight, "recompute"),
    edge(State::InFlight, State::Full, "publish"),
    edge(State::InFlight, State::Reduced, "publish"),
    edge(State::InFlight, State::Compressed, "publish"),
    edge(State::InFlight, State::Staged, "cancel"),
    edge(State::InFlight, State::Cold, "cancel"),
    edge(State::InFlight, State::Recomputable, "cancel"),
    forget(State::Staged),
    forget(State::Cold),
    forget(State::Full),
    forget(State::Reduced),
    forget(State::Compressed),
];

/// `[from][to][recipe]`: whether an edge leads there for a block without a recipe, or with one.
const LEADS: [[[bool; 2]; STATES.len()]; STATES.len()] = {
    let mut table = [[[false; 2]; STATES.len()]; STATES.len()];
    let mut next = 0;
    while next < EDGES.len() {
        let edge = &EDGES[next];
        table[edge.from as usize][edge.to as usize] = [!edge.needs_recipe, true];
        next += 1;
    }
    table
};

/// Whether a block may go from one state to another, which may depend on its having a recipe.
#[inline]
pub fn leads(from: State, to: State, has_recipe: bool) -> bool {
    LEADS[from as usize][to as usize][usize::from(has_recipe)]
}

/// The edge between two states, if it is legal.
pub fn edge_between(from: State, to: State) -> Option<&'static Edge> {
    EDGES.iter().find(|edge| edge.from == from && edge.to == to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_the_numbers() {
        for (index, state) in STATES.iter().enumerate() {
            assert_eq!(*state as usize, index);
            assert_eq!(state.code(), format!("S{}", index + 1));
        }
    }

    #[test]
    fn the_table_has_each_edge_once_and_none_to_itself() {
        for (index, edge) in EDGES.iter().enumerate() {
            assert_ne!(edge.from, edge.to);
            assert!(EDGES[index + 1..].iter().all(|other| (other.from, other.to) != (edge.from, edge.to)));
        }
    }

    #[test]
    fn nothing_reaches_fast_memory_without_a_move_and_nothing_leaves_flight_but_by_publish_or_cancel() {
        for from in [State::Staged, State::Cold, State::Recomputable] {
            for to in [State::Full, State::Reduced, State::Compressed] {
                assert_eq!(edge_between(from, to), None);
            }
        }
        for (from, to) in STATES.iter().flat_map(|&from| STATES.map(|to| (from, to))) {
            let edge = edge_between(from, to);
            assert_eq!(leads(from, to, false), edge.is_some_and(|edge| !edge.needs_recipe));
            assert_eq!(leads(from, to, true), edge.is_some());
        }
        for edge in EDGES.iter().filter(|edge| edge.from == State::InFlight) {
            assert!(edge.name == "publish" || edge.name == "cancel");
        }
    }
}
