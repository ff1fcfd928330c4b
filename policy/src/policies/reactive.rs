//! A cache rule as a controller policy: it fetches what is missing, in full precision, and evicts by its own order.

use crate::control::{Context, Policy, Proposal, Rests, Victim};
use crate::event::Routed;
use crate::id::{BlockId, LayerId};
use crate::record::Action;
use crate::rule::{Keep, Rule};
use crate::score::Terms;

/// Any [`Rule`] in charge of the fast tier. Its time is the layer step, as in a replay in atomic order.
#[derive(Clone, Debug)]
pub struct Reactive<R> {
    rule: R,
    now: u64,
    /// What the running step lacked, in the order it will come in, and how much of it has.
    missing: Vec<u32>,
    arrived: usize,
}

impl<R: Rule> Reactive<R> {
    /// The rule, with nothing resident but what it starts with.
    pub fn new(rule: R) -> Reactive<R> {
        Reactive { rule, now: 0, missing: Vec::new(), arrived: 0 }
    }
}

/// What the running step needs or a move is writing.
struct InUse<'a>(&'a Context);

impl Keep for InUse<'_> {
    fn keeps(&self, id: u32) -> bool {
        !self.0.ledger.is_idle(BlockId(id))
    }
}

/// What a policy says that loads whatever is missing in full precision, by the quickest route.
pub(super) fn at_full_precision(context: &Context, proposal: &Proposal) -> Option<Terms> {
    let native = context.model.block(proposal.block).native;
    let moving = proposal.wait().0 as f64;
    let fetches = !matches!(proposal.action, Action::InPlace | Action::Skip);
    (fetches && proposal.route.to.format == native).then(|| Terms { moving, ..Terms::default() }.sum())
}

impl<R: Rule + Send> Policy for Reactive<R> {
    fn observe(&mut self, context: &Context, _layer: LayerId, routed: &[Routed]) {
        self.now = context.signals.layer_step - 1;
        self.missing.clear();
        self.arrived = 0;
        for expert in routed {
            if context.ledger.is_fast(expert.block) {
                self.rule.touch(expert.block.0, self.now);
            } else {
                self.missing.push(expert.block.0);
            }
        }
    }

    fn rests(&self) -> Rests {
        Rests::OnHits
    }

    fn weigh(&mut self, context: &Context, proposal: &Proposal) -> Option<Terms> {
        at_full_precision(context, proposal)
    }

    fn victim(&mut self, context: &Context) -> Option<Victim> {
        while let Some(&id) = self.missing.get(self.arrived) {
            if !self.rule.contains(id) {
                self.rule.incoming(id, self.now);
                break;
            }
            self.arrived += 1;
        }
        let block = BlockId(self.rule.evict(self.now, &InUse(context))?);
        let form = context.ledger.fast_copies(block).next()?;
        Some(Victim { block, form, terms: None })
    }

    fn admitted(&mut self, _context: &Context, block: BlockId) {
        if self.rule.contains(block.0) {
            self.rule.touch(block.0, self.now);
        } else {
            self.rule.insert(block.0, self.now);
        }
    }

    fn lost(&mut self, _context: &Context, block: BlockId) {
        self.rule.remove(block.0);
    }
}
