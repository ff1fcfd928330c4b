//! What policies of two precisions share: the lower one, and serving a step from either without asking which is better.

use crate::control::{Context, Proposal};
use crate::format::FormatId;
use crate::id::BlockId;
use crate::record::Action;
use crate::score::Terms;

/// The lower of the two precisions, which the papers leave to the operator: of the formats that lose bits, that kernels read
/// as they are and that the floors allow, the smallest with which a layer would keep the drift budget were all its blocks
/// held so and its gates equal; else the one with the least error. `None` where there is no such format or no budget.
pub(super) fn low_format(context: &Context, block: BlockId) -> Option<FormatId> {
    let (data, budget) = (context.model.block(block), context.guard.budget());
    let selected = f64::from(context.model.layer(data.layer).selected.max(1));
    let lossy = |format: &FormatId| format.get().direct && !format.keeps(data.native);
    let fetched = |format: &FormatId| context.costs.fetch(&context.ledger, block, *format).is_some();
    let formats = context.costs.formats.iter().copied().filter(lossy).filter(fetched);
    let errors = formats.filter_map(|format| Some((format, context.guard.error(block, format)?.upper)));
    let errors: Vec<(FormatId, f64)> = errors.filter(|_| budget > 0.0).collect();
    let within = errors.iter().filter(|(_, error)| error * error <= selected * budget * budget);
    let smallest = within.min_by_key(|(format, _)| data.bytes(*format));
    let finest = || errors.iter().min_by(|a, b| a.1.total_cmp(&b.1));
    smallest.or_else(finest).map(|&(format, _)| format)
}

/// A way to serve a block in full precision or in `low`, by what the step waits for it; `None` for any other.
pub(super) fn by_wait(context: &Context, proposal: &Proposal, low: Option<FormatId>) -> Option<Terms> {
    let format = proposal.route.to.format;
    let used = format == context.model.block(proposal.block).native || Some(format) == low;
    let moves = !matches!(proposal.action, Action::InPlace | Action::Skip);
    (used && moves).then(|| Terms { moving: proposal.wait().0 as f64, ..Terms::default() }.sum())
}
