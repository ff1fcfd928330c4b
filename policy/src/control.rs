//! What a policy is to the controller: it ranks, the guard may refuse, the schedule orders, the platform acts.

use crate::event::{Form, MoveClass, Routed};
use crate::guard::Guard;
use crate::homes::Homes;
use crate::id::{BlockId, LayerId, RequestId};
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::model::Model;
use crate::observe::Signals;
use crate::record::Action;
use crate::schedule::Pace;
use crate::score::{Costs, Route, Terms};
use crate::units::Nanos;
use std::sync::Arc;

/// Everything a policy may look at.
#[derive(Debug)]
pub struct Context {
    /// The model.
    pub model: Arc<Model>,
    /// The machine.
    pub machine: Arc<Machine>,
    /// Copies and moves.
    pub ledger: Ledger,
    /// The tiers of the home copies.
    pub home: Homes,
    /// Time, cadence, pressure.
    pub signals: Signals,
    /// Errors, floors and the budget.
    pub guard: Guard,
    /// Costs of moves and codings.
    pub costs: Costs,
    /// How background moves are kept from crowding a link.
    pub pace: Pace,
}

/// A change that is proposed for one block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proposal {
    /// The block.
    pub block: BlockId,
    /// What.
    pub action: Action,
    /// How the copy would be made.
    pub route: Route,
    /// Why: its class on the link.
    pub class: MoveClass,
    /// What the running step has given others to do already.
    pub work: StepWork,
    /// Tokens that go through the block; none where they are yet to come.
    pub tokens: u32,
    /// Squared gate weight of the tokens that go through the block, per token of the batch; an upper bound where the
    /// tokens are yet to come.
    pub gate_squared: f64,
    /// Squared drift that the layer has already taken on by earlier choices.
    pub layer_drift: f64,
    /// Observations behind `terms.probability`.
    pub observations: u64,
    /// The score.
    pub terms: Terms,
}

/// What a layer step has given to others to do before it can end: to links, and to each processor beside other memories. All of them
/// work beside each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepWork {
    /// What the one has to do already who would do this too.
    pub before: Nanos,
    /// When all of them are done.
    pub end: Nanos,
}

impl Proposal {
    /// A move that no step waits for, of a block in a layer that was seen so often.
    pub fn ahead(
        block: BlockId,
        (action, class): (Action, MoveClass),
        route: Route,
        observations: u64,
        terms: Terms,
    ) -> Proposal {
        Proposal {
            block,
            action,
            route,
            class,
            work: StepWork::default(),
            tokens: 0,
            gate_squared: 0.0,
            layer_drift: 0.0,
            observations,
            terms: terms.sum(),
        }
    }

    /// How much longer the running step waits if it is served so.
    pub fn wait(&self) -> Nanos {
        (self.work.before + self.route.time).saturating_sub(self.work.end)
    }
}

/// A copy to give up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Victim {
    /// The block.
    pub block: BlockId,
    /// The copy.
    pub form: Form,
    /// The score, where the policy has one.
    pub terms: Option<Terms>,
}

/// What a policy that trades by price pays now, in nanoseconds of stall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// For a byte of fast memory kept for a token.
    pub memory: f64,
    /// For one unit of squared layer drift.
    pub drift: f64,
}

/// When a policy leaves everything as it is: it then gives nothing up, wants nothing moved, and what it learns it learns from
/// [`observe`](Policy::observe).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rests {
    /// Perhaps never.
    Never,
    /// While all blocks are in fast memory in full precision.
    AllResident,
    /// In every layer step that finds its blocks there.
    OnHits,
}

/// A residency policy. It decides nothing alone: what it ranks best is vetoed, scheduled and carried out by others.
pub trait Policy: Send {
    /// The platform expects a coming layer of the running step to choose these blocks.
    fn foresee(&mut self, _context: &Context, _layer: LayerId, _routed: &[Routed]) {}

    /// A layer was routed: called once a layer step, before anything is decided for it.
    fn observe(&mut self, context: &Context, layer: LayerId, routed: &[Routed]);

    /// The cost of serving the running step as proposed, at most from what is known now; least is taken first. `None`
    /// for a form the policy does not use.
    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms>;

    /// The fast copy to give up next. It must belong to a block that is neither pinned nor under way, and must not be
    /// the copy a move reads; `None` if there is no such copy.
    fn victim(&mut self, context: &Context) -> Option<Victim>;

    /// A copy that is not to be kept although nobody needs its room: asked for until there is none, when a layer's blocks have
    /// been computed. As [`victim`](Policy::victim) otherwise.
    fn release(&mut self, _context: &Context) -> Option<Victim> {
        None
    }

    /// When it leaves everything as it is.
    fn rests(&self) -> Rests {
        Rests::Never
    }

    /// Room has been taken for a fast copy of a block that had none.
    fn admitted(&mut self, _context: &Context, _block: BlockId) {}

    /// A block has lost its last fast copy, or its move, other than as the policy's own victim.
    fn lost(&mut self, _context: &Context, _block: BlockId) {}

    /// Moves worth making while the links are idle, best first. Their `class` is prefetch or speculation. Asked when a layer's
    /// blocks are handed to the accelerator, and when a move ahead of demand has ended and nothing is waited for.
    fn speculate(&mut self, _context: &Context, _proposals: &mut Vec<Proposal>) {}

    /// Copies worth reading into a staging tier while the links there rest, best first, by the ways of [`Costs`]. What their room
    /// costs is added to their terms. Asked when a layer was routed, and when one of them has ended.
    fn read_ahead(&mut self, _context: &Context, _proposals: &mut Vec<Proposal>) {}

    /// Tokens until a block is expected to be asked for, where the policy has a view of that: copies that are wanted last make room for
    /// those that are read into a staging tier.
    fn tokens_until(&self, _context: &Context, _block: BlockId) -> Option<f64> {
        None
    }

    /// A token step is complete; `drift` is its drift at the upper bound.
    fn step_done(&mut self, _context: &Context, _drift: f64) {}

    /// What it pays for memory and drift, if it has prices for them.
    fn prices(&self) -> Option<Prices> {
        None
    }

    /// Why the policy cannot go on, if it cannot: the run ends.
    fn failure(&self) -> Option<String> {
        None
    }

    /// A request has all its tokens.
    fn request_done(&mut self, _context: &Context, _request: RequestId) {}
}
