//! Ways from a far copy into a staging tier, from where it is one quick copy to the fast tier: worked out once for a run.

use super::Route;
use super::carried::Carried;
use crate::event::{EncodeAt, Form, Source};
use crate::format::{FORMATS, FormatId};
use crate::id::{BlockId, LinkId, TierId};
use crate::machine::Machine;
use crate::path::Paths;
use crate::sizes::Sizes;

/// See the module. Empty where there are no staging tiers.
#[derive(Clone, Debug, Default)]
pub(super) struct Nearer {
    tiers: usize,
    /// By shape, tier and format.
    routes: Vec<Option<Route>>,
}

impl Nearer {
    pub(super) fn new(
        (sizes, carried): (&Sizes, &Carried),
        machine: &Machine,
        (fast, staging): (TierId, &[TierId]),
        formats: &[FormatId],
    ) -> Nearer {
        if staging.is_empty() {
            return Nearer::default();
        }
        let (tiers, paths) = (machine.tiers.len(), Paths::new(machine));
        let mut routes = vec![None; sizes.examples().count() * tiers * FORMATS.len()];
        for (shape, block) in sizes.examples().enumerate() {
            let far = (0..tiers as u8).map(TierId).filter(|tier| *tier != fast && !staging.contains(tier));
            for from in far.flat_map(|tier| formats.iter().map(move |&format| Form { tier, format })) {
                let place = Self::place(tiers, shape, from);
                routes[place] = staging.iter().find_map(|&tier| {
                    let to = Form { tier, ..from };
                    let time = |from: Form| carried.route(shape, from, from.format).map(|route| route.time);
                    let saves = time(to)? < time(from)?;
                    (saves && is_ours(machine, tier))
                        .then(|| way(sizes, machine, &paths, (block, from, to), fast))?
                });
            }
        }
        Nearer { tiers, routes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// The way for blocks of a shape from a copy into the first staging tier that brings it nearer.
    #[inline]
    pub(super) fn route(&self, shape: usize, from: Form) -> Option<&Route> {
        self.routes.get(Self::place(self.tiers, shape, from))?.as_ref()
    }

    fn place(tiers: usize, shape: usize, from: Form) -> usize {
        (shape * tiers + from.tier.index()) * FORMATS.len() + from.format.0 as usize
    }
}

/// Memory that is lent is not kept busy, and what wears out is not written to for a single use.
fn is_ours(machine: &Machine, tier: TierId) -> bool {
    let tier = machine.tier(tier);
    !tier.transient && tier.endurance.is_none()
}

/// What goes over fast memory would take its links from demands.
fn way(
    sizes: &Sizes,
    machine: &Machine,
    paths: &Paths,
    (block, from, to): (BlockId, Form, Form),
    fast: TierId,
) -> Option<Route> {
    let path = paths.between(from.tier, to.tier)?;
    let aside = |&link: &LinkId| machine.link(link).to != fast;
    let crossing = sizes.bytes(block, from.format);
    path.links.iter().all(aside).then(|| Route {
        from: Source::Copy(from),
        to,
        encode_at: EncodeAt::Source,
        links: path.set,
        crossing,
        time: path.transfer(crossing),
        occupies: path.busy(crossing),
    })
}
