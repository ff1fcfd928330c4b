//! What routers that were asked ahead of time say of the coming layers, and how far that can be believed.
//!
//! Look-ahead is taken as evidence, and what the router's history says as the prior: by Bayes' rule the odds that a block is
//! chosen are multiplied by how much likelier it is to be named when it is chosen than when it is not. Both chances are counted
//! as layers come, apart for each distance, so nobody has to state an accuracy and nobody's statement is trusted. At first
//! naming a block says nothing of it.

use super::holding::RARE;
use crate::id::LayerId;
use crate::predict::History;
use std::ops::Range;

/// Chosen blocks, and blocks not chosen, as which the first estimates count: naming them was no better than chance.
const PRIOR: f64 = 4.0;
/// Distances told apart: one bit each.
const DISTANCES: u32 = u64::BITS;

/// What was named at one distance, and what came of it. Counts of blocks.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    named: f64,
    chosen: f64,
    hits: f64,
    all: f64,
}

impl Record {
    /// The chance that a block is named: if it will be chosen, and if not.
    fn chances(self) -> (f64, f64) {
        let Record { named, chosen, hits, all } = self;
        let prior = PRIOR * named / f64::max(1.0, all);
        ((hits + prior) / (chosen + PRIOR), (named - hits + prior) / (all - chosen + PRIOR))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Foresight {
    /// For each layer, its blocks.
    layers: Vec<Range<usize>>,
    /// For each block, the distances at which it has been named for the coming visit of its layer.
    named: Vec<u64>,
    /// The layers foreseen that have not come yet, with the distances of the newest word and of all.
    coming: Vec<(LayerId, u32, u64)>,
    /// For each distance.
    records: Vec<Record>,
    /// For each block of a layer that is foreseen, the probability that it is chosen.
    next: Vec<f32>,
    /// Most layers that were foreseen at once.
    depth: u32,
}

impl Foresight {
    /// Nothing is foreseen of layers that have these blocks.
    pub(super) fn new(layers: Vec<Range<usize>>) -> Foresight {
        let blocks = layers.iter().map(|blocks| blocks.end).max().unwrap_or(0);
        Foresight {
            named: vec![0; blocks],
            coming: Vec::with_capacity(layers.len()),
            records: vec![Record::default(); DISTANCES as usize],
            next: vec![0.0; blocks],
            depth: 0,
            layers,
        }
    }

    /// A layer that is `distance` layers ahead is expected to choose these blocks, given by their places in it.
    pub(super) fn foresee(&mut self, layer: LayerId, distance: u32, places: impl Iterator<Item = usize>) {
        let distance = distance.min(DISTANCES - 1);
        let known = self.coming.iter().position(|(known, ..)| *known == layer);
        let known = known.unwrap_or_else(|| {
            self.coming.push((layer, 0, 0));
            self.coming.len() - 1
        });
        let (_, newest, heard) = &mut self.coming[known];
        *newest = distance;
        *heard |= 1 << distance;
        let named = &mut self.named[self.layers[layer.index()].clone()];
        named.iter_mut().for_each(|named| *named &= !(1 << distance));
        places.for_each(|place| named[place] |= 1 << distance);
        self.depth = self.depth.max(self.coming.len() as u32);
    }

    /// A layer has chosen: what was said of it is judged and forgotten.
    pub(super) fn observe(&mut self, layer: LayerId, chosen: &[u32]) {
        let Some(known) = self.coming.iter().position(|(known, ..)| *known == layer) else { return };
        let (_, _, heard) = self.coming.remove(known);
        let named = &mut self.named[self.layers[layer.index()].clone()];
        for distance in (0..DISTANCES).filter(|distance| heard >> distance & 1 == 1) {
            let is_named = |word: u64| (word >> distance & 1) as f64;
            let record = &mut self.records[distance as usize];
            record.named += named.iter().map(|&word| is_named(word)).sum::<f64>();
            record.hits += chosen.iter().map(|&place| is_named(named[place as usize])).sum::<f64>();
            record.chosen += chosen.len() as f64;
            record.all += named.len() as f64;
        }
        named.fill(0);
    }

    /// Most layers that were foreseen at once.
    pub(super) fn depth(&self) -> u32 {
        self.depth
    }

    /// Works out anew what to expect of every layer that is foreseen. Returns these layers.
    pub(super) fn sharpen(&mut self, history: &History) -> impl Iterator<Item = LayerId> + '_ {
        for &(layer, distance, _) in &self.coming {
            let (if_chosen, if_not) = self.records[distance as usize].chances();
            let blocks = self.layers[layer.index()].clone();
            let next = self.next[blocks.clone()].iter_mut().zip(&self.named[blocks]);
            for ((next, word), &p) in next.zip(history.next_visit(layer)) {
                let named = word >> distance & 1 == 1;
                let chances = if named { (if_chosen, if_not) } else { (1.0 - if_chosen, 1.0 - if_not) };
                *next = posterior(p, chances);
            }
        }
        self.coming.iter().map(|(layer, ..)| *layer)
    }

    /// For each block of a layer, the probability that it is chosen when the layer comes.
    #[inline]
    pub(super) fn next_visit<'a>(&'a self, history: &'a History, layer: LayerId) -> &'a [f32] {
        if self.coming.iter().any(|(known, ..)| *known == layer) {
            return &self.next[self.layers[layer.index()].clone()];
        }
        history.next_visit(layer)
    }
}

/// Bayes' rule: the probability of a block, from the prior `p` and the chances of what was said if it is chosen and if not.
fn posterior(p: f32, (if_chosen, if_not): (f64, f64)) -> f32 {
    let p = f64::from(p).clamp(RARE, 1.0 - RARE);
    let all = p * if_chosen + (1.0 - p) * if_not;
    (if all > 0.0 { p * if_chosen / all } else { p }) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Layer, Model};
    use crate::predict::{Predictor, Shape};

    const LAYER: LayerId = LayerId(0);
    const BLOCKS: usize = 16;
    const PRIOR: f32 = 1.0 / BLOCKS as f32;

    fn foresight() -> Foresight {
        Foresight::new(std::iter::once(0..BLOCKS).collect())
    }

    /// What is said of the layer, by a history that knows nothing of it.
    fn next(foresight: &mut Foresight) -> Vec<f32> {
        let layer = Layer { blocks: BLOCKS as u32, selected: 1, ..Layer::default() };
        let model = Model { layers: vec![layer], ..Model::default() };
        let history = History::new(&model, None::<fn(Shape) -> Box<dyn Predictor>>).unwrap();
        assert_eq!(foresight.sharpen(&history).collect::<Vec<_>>(), [LAYER]);
        foresight.next_visit(&history, LAYER).to_vec()
    }

    /// A router that walks over the blocks, and look-ahead that names its choice in so many of ten visits. Returns the
    /// probability given to a block that is named, and to one that is not, in the end.
    fn believed(right_of_ten: usize) -> (f32, f32) {
        let mut foresight = foresight();
        for visit in 0..4000 {
            let chosen = visit * 7 % BLOCKS;
            let wrong = visit % 10 >= right_of_ten;
            let named = (chosen + usize::from(wrong) * (1 + visit % (BLOCKS - 1))) % BLOCKS;
            foresight.foresee(LAYER, 3, [named].into_iter());
            foresight.observe(LAYER, &[chosen as u32]);
        }
        foresight.foresee(LAYER, 3, [5].into_iter());
        let next = next(&mut foresight);
        (next[5], next[6])
    }

    #[test]
    fn what_is_named_is_believed_as_often_as_it_came_true() {
        for right_of_ten in [0, 5, 9, 10] {
            let (named, other) = believed(right_of_ten);
            let share = right_of_ten as f32 / 10.0;
            assert!((named - share).abs() < 0.02, "{named} of {share}");
            assert!((other - (1.0 - share) / (BLOCKS - 1) as f32).abs() < 0.002, "{other} of {share}");
        }
    }

    #[test]
    fn at_first_naming_says_nothing() {
        let mut foresight = foresight();
        foresight.foresee(LAYER, 1, [7].into_iter());
        assert!(next(&mut foresight).iter().all(|p| (p - PRIOR).abs() < 1e-6));
    }

    #[test]
    fn the_newest_word_counts_and_each_distance_is_judged_alone() {
        let mut foresight = foresight();
        for _ in 0..100 {
            foresight.foresee(LAYER, 2, [1].into_iter());
            foresight.foresee(LAYER, 1, [2].into_iter());
            foresight.observe(LAYER, &[2]);
        }
        foresight.foresee(LAYER, 2, [1].into_iter());
        assert!(next(&mut foresight)[1] < 0.01);
        foresight.foresee(LAYER, 1, [1].into_iter());
        assert!(next(&mut foresight)[1] > 0.9);
    }
}
