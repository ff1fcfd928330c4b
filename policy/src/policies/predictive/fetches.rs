//! How each block would be fetched, and what that costs, worked out once for each set of copies it has.

use crate::control::Context;
use crate::id::BlockId;
use crate::score::Route;

/// A way to have a block again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) route: Route,
    /// Nanoseconds on the link.
    pub(super) moving: f64,
    /// Nanoseconds to expand the copy before use.
    pub(super) decode: f64,
    /// The price of the drift that a use of the copy adds, in nanoseconds.
    pub(super) drift: f64,
}

impl Way {
    /// Nanoseconds from asking to use, and what its drift is worth.
    pub(super) fn cost(self) -> f64 {
        self.moving + self.decode + self.drift
    }
}

/// The cheapest way, if there is any, for a set of copies.
type Known = Option<(u64, Option<Way>)>;

/// See the module.
#[derive(Debug)]
pub(super) struct Fetches {
    /// For each block, as last worked out without a fast copy and with one: it goes to and fro between the two.
    known: Vec<[Known; 2]>,
}

impl Fetches {
    /// Nothing worked out yet.
    pub(super) fn new(blocks: usize) -> Fetches {
        Fetches { known: vec![[None; 2]; blocks] }
    }

    /// The cheapest way to a block; `cheapest` works it out anew.
    #[inline]
    pub(super) fn of(
        &mut self,
        context: &Context,
        block: BlockId,
        cheapest: impl FnOnce() -> Option<Way>,
    ) -> Option<Way> {
        let ledger = &context.ledger;
        let copies = ledger.copies_word(block);
        let known = &mut self.known[block.index()][usize::from(ledger.is_fast(block))];
        match known {
            Some((of, way)) if *of == copies => *way,
            _ => {
                let way = cheapest();
                *known = Some((copies, way));
                way
            }
        }
    }
}
