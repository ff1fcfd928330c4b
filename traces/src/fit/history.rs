//! What a router chose before, as features of what it chooses next.

use super::tables::Tables;
use crate::routing::Shape;

/// The number of features of an expert.
pub(super) const FEATURES: usize = 8;
/// The features of one expert, in the order of [`NAMES`].
pub(super) type Features = [f64; FEATURES];

/// What each feature is. The first is the logarithm of the popularity in the request over that in the whole trace, the
/// next four are 1 where they hold, the last three are means, over the experts chosen there, of the logarithm of
/// how much likelier the expert is after that choice.
pub(super) const NAMES: [&str; FEATURES] = [
    "a favourite of the request",
    "chosen by the previous token",
    "last chosen 2 to 4 tokens ago",
    "last chosen 5 to 16 tokens ago",
    "last chosen 17 to 64 tokens ago",
    "after the previous token's choice",
    "after the choice one layer before",
    "after the choice two layers before",
];

/// Tokens since the last choice up to which the four features of age hold.
const AGES: [u32; 4] = [1, 4, 16, 64];
/// The first of the features of age, and of those about pairs.
const FIRST_AGE: usize = 1;
const FIRST_PAIR: usize = 5;

/// The choices of the running request so far.
pub(super) struct History<'a> {
    tables: &'a Tables,
    /// The recorded request whose favourites it has.
    request: usize,
    /// Number of the token of the request that chose a block last, from 1; 0 where none did.
    last: Vec<u32>,
    /// Tokens of the request that are done.
    tokens: u32,
    /// The last token's choice at each layer, then this one's.
    previous: Vec<Vec<u16>>,
    chosen: Vec<Vec<u16>>,
}

impl<'a> History<'a> {
    pub(super) fn new(tables: &'a Tables) -> History<'a> {
        let layers = vec![Vec::new(); tables.shape.layers as usize];
        History {
            request: 0,
            last: vec![0; tables.shape.blocks() as usize],
            tokens: 0,
            previous: layers.clone(),
            chosen: layers,
            tables,
        }
    }

    pub(super) fn shape(&self) -> Shape {
        self.tables.shape
    }

    /// Begins a request with the favourites of a recorded one.
    pub(super) fn begin_request(&mut self, request: usize) {
        self.request = request;
        self.last.fill(0);
        self.tokens = 0;
        self.previous.iter_mut().for_each(Vec::clear);
        self.chosen.iter_mut().for_each(Vec::clear);
    }

    /// Fills `out` with the features of every expert of a layer, whose lower layers this token has chosen.
    pub(super) fn features(&self, layer: usize, out: &mut Vec<Features>) {
        out.clear();
        let above =
            |distance: usize| layer.checked_sub(distance).map_or(&[][..], |layer| &self.chosen[layer]);
        let sources = [&self.previous[layer][..], above(1), above(2)];
        let favourites = self.tables.favourites(self.request, layer);
        let first = layer * favourites.len();
        out.extend(favourites.iter().enumerate().map(|(expert, &favourite)| {
            let mut features = [0.0; FEATURES];
            features[0] = favourite as f64;
            if let Some(age) = self.age(first + expert) {
                features[FIRST_AGE + age] = 1.0;
            }
            features
        }));
        for (kind, chosen) in sources.iter().enumerate() {
            let scale = 1.0 / chosen.len().max(1) as f64;
            for lifts in chosen.iter().map(|&from| self.tables.lifts(kind, layer, from)) {
                for (features, &lift) in out.iter_mut().zip(lifts) {
                    features[FIRST_PAIR + kind] += scale * lift as f64;
                }
            }
        }
    }

    /// Which of [`AGES`] the last choice of a block falls under.
    fn age(&self, block: usize) -> Option<usize> {
        let age = self.tokens + 1 - self.last[block];
        AGES.iter().position(|&most| age <= most).filter(|_| self.last[block] > 0)
    }

    /// Notes what this token chose at a layer.
    pub(super) fn choose(&mut self, layer: usize, experts: &[u16]) {
        self.chosen[layer].clear();
        self.chosen[layer].extend_from_slice(experts);
    }

    /// Notes that the token is done.
    pub(super) fn end_token(&mut self) {
        self.tokens += 1;
        let experts = self.tables.shape.experts as usize;
        for (layer, chosen) in self.chosen.iter().enumerate() {
            chosen.iter().for_each(|&expert| self.last[layer * experts + expert as usize] = self.tokens);
        }
        std::mem::swap(&mut self.previous, &mut self.chosen);
    }
}
