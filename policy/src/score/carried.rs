//! The quickest way to carry a lower copy to the fast tier, for every shape of block, place it may lie in and pair of formats:
//! worked out once for a run, and asked for at every miss.

use super::{Route, coding_time};
use crate::event::{EncodeAt, Form, Source};
use crate::format::{FORMATS, FormatId};
use crate::id::{BlockId, TierId};
use crate::machine::{Class, Machine};
use crate::model::Model;
use crate::path::Paths;
use crate::sizes::Sizes;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    tiers: usize,
    /// The place of each format among those of the run.
    places: [Option<u8>; FORMATS.len()],
    formats: usize,
    /// By shape, tier, format there and format here.
    routes: Vec<Option<Route>>,
}

impl Carried {
    pub(super) fn new(
        (model, sizes): (&Model, &Sizes),
        machine: &Machine,
        fast: TierId,
        formats: &[FormatId],
    ) -> Carried {
        let mut places = [None; FORMATS.len()];
        for (place, format) in (0..).zip(formats) {
            places[format.0 as usize] = Some(place);
        }
        let (ways, mut routes) =
            (Ways { model, sizes, machine, fast, paths: Paths::new(machine) }, Vec::new());
        for block in sizes.examples() {
            for tier in (0..machine.tiers.len() as u8).map(TierId) {
                for &there in formats {
                    let from = Form { tier, format: there };
                    routes.extend(formats.iter().map(|&here| ways.quickest(block, from, here)));
                }
            }
        }
        Carried { tiers: machine.tiers.len(), places, formats: formats.len(), routes }
    }

    /// The quickest way from a lower copy of a block of this shape to a fast one in `format`.
    #[inline]
    pub(super) fn route(&self, shape: usize, from: Form, format: FormatId) -> Option<&Route> {
        let place = |format: FormatId| self.places[format.0 as usize].map(usize::from);
        let (there, here) = (place(from.format)?, place(format)?);
        let row = (shape * self.tiers + from.tier.index()) * self.formats + there;
        self.routes[row * self.formats + here].as_ref()
    }
}

struct Ways<'a> {
    model: &'a Model,
    sizes: &'a Sizes,
    machine: &'a Machine,
    fast: TierId,
    paths: Paths,
}

impl Ways<'_> {
    /// A copy in another format is coded on arrival or by the host before it leaves, and must have every bit.
    fn quickest(&self, block: BlockId, from: Form, format: FormatId) -> Option<Route> {
        let native = self.model.block(block).native;
        let slow = self.machine.tier(from.tier).class != Class::Fast;
        if !slow || (from.format != format && !from.format.keeps(native)) {
            return None;
        }
        let arrived = self.coded_at(block, from, format, EncodeAt::Destination);
        let by_host = from.format != format && !self.machine.host_codecs.is_empty();
        let encoded = by_host.then(|| self.coded_at(block, from, format, EncodeAt::Source)).flatten();
        arrived.into_iter().chain(encoded).min_by_key(|route| route.time)
    }

    fn coded_at(&self, block: BlockId, from: Form, format: FormatId, encode_at: EncodeAt) -> Option<Route> {
        let path = self.paths.between(from.tier, self.fast)?;
        let (side, crosses) = match encode_at {
            EncodeAt::Source => (from.tier, format),
            EncodeAt::Destination => (self.fast, from.format),
        };
        let crossing = self.sizes.bytes(block, crosses);
        let whole = self.sizes.bytes(block, self.model.block(block).native);
        let time = path.transfer(crossing) + coding_time(self.machine, side, whole, from.format, format)?;
        let to = Form { tier: self.fast, format };
        let (from, occupies) = (Source::Copy(from), path.busy(crossing));
        Some(Route { from, to, encode_at, links: path.set, crossing, time, occupies })
    }
}
