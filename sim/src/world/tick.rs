//! What comes up in a world, one instant after the other.

use policy::event::Event;
use policy::{Bytes, MoveId, Nanos, ProcessorId, RequestId};

/// What the queue holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tick {
    /// A chunk has been encoded and goes on to its links.
    Encoded {
        id: MoveId,
        bytes: Bytes,
    },
    Arrived {
        id: MoveId,
        bytes: Bytes,
        queued: Nanos,
    },
    /// The controller asked to be woken.
    Wake,
    Computed,
    NearComputed(ProcessorId),
    /// All ranks have come as far as this one.
    Met,
    /// What another stage has computed is announced, and is here.
    HandedOn,
    Landed,
    /// The accelerators add up what a kernel gave, over links that blocks move on.
    Sums,
    /// Tokens that were elsewhere are here.
    TokensBack,
    Loaded,
    Request(RequestId),
    Pressure,
}

/// What an instant brings.
pub(super) enum Passed {
    /// Something that the controller hears of.
    Event(Event),
    /// Something that it does not.
    Inside,
    /// Nothing more: the run is over.
    Over,
}
