//! How each block would be fetched, and what that costs, worked out once for each set of copies it has.

use crate::control::Context;
use crate::id::BlockId;
use crate::score::Route;

/// How a block would be fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetch {
    /// The block's copies that this follows from.
    copies: u64,
    /// Nanoseconds until it can be read, in the format that is quickest.
    pub(super) cost: f64,
    /// The way to a copy in its native format, if there is one.
    pub(super) native: Option<Route>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Fetches {
    /// For each block, as last worked out without a fast copy and with one: it goes to and fro between the two.
    known: Vec<[Option<Fetch>; 2]>,
}

impl Fetches {
    /// Nothing worked out yet.
    pub(super) fn new(blocks: usize) -> Fetches {
        Fetches { known: vec![[None; 2]; blocks] }
    }

    /// How a block would be fetched; `cost` works out the cost anew.
    #[inline]
    pub(super) fn of(&mut self, context: &Context, block: BlockId, cost: impl FnOnce() -> f64) -> Fetch {
        let ledger = &context.ledger;
        let copies = ledger.copies_word(block);
        let known = &mut self.known[block.index()][usize::from(ledger.is_fast(block))];
        if let Some(fetch) = known.filter(|fetch| fetch.copies == copies) {
            return fetch;
        }
        let native = context.costs.fetch(ledger, block, context.model.block(block).native);
        *known.insert(Fetch { copies, cost: cost(), native })
    }
}
