//! The blocks that layer steps need, in time order: what a replay reads and a clairvoyant rule knows.

use std::borrow::Cow;
use std::ops::{Deref, Range};

/// Ids that are widened at once where they are stored in 16 bits: what a core's first cache holds.
const WIDENED: usize = 2048;

/// A sequence of layer steps and the dense ids each selects, in stored order. The ids of one step are one atomic
/// demand; an id selected twice in a step is one demanded block.
#[derive(Clone, Debug, Default)]
pub struct Demands {
    universe: u32,
    layers: u32,
    ids: Vec<u32>,
    /// The only id of each step, in place of `ids`: long lists of accesses cost as much to lay out in memory as to replay.
    singles: Vec<u16>,
    len: usize,
    /// The length of every step while all are of one.
    width: usize,
    /// Where each step ends; empty while all are of one length.
    ends: Vec<usize>,
    starts: Vec<usize>,
}

impl Demands {
    /// An empty sequence over ids `0..universe` of which no layers are known.
    pub fn new(universe: u32) -> Demands {
        Demands { universe, layers: 1, ..Demands::default() }
    }

    /// An empty sequence over the ids `layer * blocks + index` of layers that all have `blocks` blocks.
    ///
    /// # Panics
    /// If there are more than 2^32 - 1 ids.
    pub fn of_layers(layers: u32, blocks: u32) -> Demands {
        let universe = layers.checked_mul(blocks).expect("ids of 32 bits");
        Demands { universe, layers, ..Demands::default() }
    }

    /// One trace of which each step demands one id. The caller has checked that all are within the universe; a rule
    /// panics at one that is not.
    pub fn of_singles(universe: u32, singles: Vec<u16>) -> Demands {
        debug_assert!(singles.iter().all(|&id| u32::from(id) < universe), "an id outside 0..{universe}");
        Demands { len: singles.len(), width: 1, singles, starts: vec![0], ..Demands::new(universe) }
    }

    /// Puts the ids where more can be appended.
    fn widen(&mut self) {
        if !self.singles.is_empty() {
            self.ids = std::mem::take(&mut self.singles).into_iter().map(u32::from).collect();
        }
    }

    /// Marks the next step as the first of a new trace.
    pub fn begin_trace(&mut self) {
        self.starts.push(self.len);
    }

    /// Appends one layer step.
    ///
    /// # Panics
    /// If an id is outside the universe: the caller has checked its input.
    pub fn push_step(&mut self, ids: impl IntoIterator<Item = u32>) {
        self.widen();
        let from = self.ids.len();
        self.ids.extend(ids);
        assert!(self.ids[from..].iter().all(|&id| id < self.universe), "an id outside 0..{}", self.universe);
        let width = self.ids.len() - from;
        if self.len == 0 {
            self.width = width;
        }
        if !self.ends.is_empty() || width != self.width || width == 0 {
            if self.ends.is_empty() {
                self.ends = (1..=self.len).map(|step| step * self.width).collect();
            }
            self.ends.push(self.ids.len());
        }
        self.len += 1;
    }

    /// Whether every step demands exactly one id.
    pub fn all_single(&self) -> bool {
        self.ends.is_empty() && self.width == 1
    }

    /// The number of distinct ids there can be.
    pub fn universe(&self) -> u32 {
        self.universe
    }

    /// The number of layers that the ids belong to, as many to each; 1 where layers are not known.
    pub fn layers(&self) -> u32 {
        self.layers
    }

    /// The layer of every id.
    pub fn layer_of_each(&self) -> Box<[u32]> {
        let blocks = self.universe / self.layers.max(1);
        (0..self.universe).map(|id| id / blocks.max(1)).collect()
    }

    /// Every selection, in stored order.
    pub fn ids(&self) -> Cow<'_, [u32]> {
        match self.singles.as_slice() {
            [] => Cow::Borrowed(&self.ids),
            singles => singles.iter().map(|&id| u32::from(id)).collect(),
        }
    }

    /// Hands on the selections of a range of steps, in stored order, one slice after the other.
    #[inline(always)]
    pub(crate) fn in_slices(&self, steps: Range<usize>, mut each: impl FnMut(&[u32])) {
        if self.singles.is_empty() {
            return each(&self.ids[self.offset(steps.start)..self.offset(steps.end)]);
        }
        let mut wide = [0; WIDENED];
        for singles in self.singles[steps].chunks(WIDENED) {
            wide.iter_mut().zip(singles).for_each(|(wide, &id)| *wide = u32::from(id));
            each(&wide[..singles.len()]);
        }
    }

    /// The number of layer steps.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no step.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ids of step `index`, in stored order.
    pub fn step(&self, index: usize) -> Demand<'_> {
        match self.singles.as_slice() {
            [] => Demand::Many(&self.ids[self.offset(index)..self.offset(index + 1)]),
            singles => Demand::One([u32::from(singles[index])]),
        }
    }

    /// How many selections there are before step `index`, which may be the step after the last.
    pub fn offset(&self, index: usize) -> usize {
        match self.ends.as_slice() {
            [] => index * self.width,
            ends => index.checked_sub(1).map_or(0, |last| ends[last]),
        }
    }

    /// The index of the first step of each trace.
    pub fn trace_starts(&self) -> &[usize] {
        &self.starts
    }
}

impl PartialEq for Demands {
    /// However the ids are stored.
    fn eq(&self, other: &Demands) -> bool {
        let shape = |demands: &Demands| (demands.universe, demands.layers, demands.len, demands.width);
        shape(self) == shape(other)
            && (&self.ends, &self.starts) == (&other.ends, &other.starts)
            && self.ids() == other.ids()
    }
}

/// The ids of a step, in stored order.
#[derive(Clone, Copy, Debug)]
pub enum Demand<'a> {
    /// However many.
    Many(&'a [u32]),
    /// One that is stored in fewer bits.
    One([u32; 1]),
}

impl Deref for Demand<'_> {
    type Target = [u32];

    #[inline]
    fn deref(&self) -> &[u32] {
        match self {
            Demand::Many(ids) => ids,
            Demand::One(id) => id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Steps of one length are told apart without their ends, others by them: what is read is what was written.
        #[test]
        fn steps_come_back_as_they_were_pushed(
            even in 0usize..4, len in 0usize..6, others in prop::collection::vec(0usize..4, 0..6),
        ) {
            let widths: Vec<usize> = std::iter::repeat_n(even, len).chain(others).collect();
            let (mut demands, mut next, mut steps) = (Demands::new(64), 0, Vec::new());
            for width in widths {
                let step: Vec<u32> = (0..width).map(|_| { next += 1; next }).collect();
                demands.push_step(step.clone());
                steps.push(step);
            }
            prop_assert_eq!(demands.len(), steps.len());
            for (index, step) in steps.iter().enumerate() {
                prop_assert_eq!(&*demands.step(index), step.as_slice());
                prop_assert_eq!(demands.offset(index + 1), demands.offset(index) + step.len());
            }
            let single = !steps.is_empty() && steps.iter().all(|step| step.len() == 1);
            prop_assert_eq!(demands.all_single(), single);
            if single {
                let mut same = Demands::of_singles(64, steps.concat().into_iter().map(|id| id as u16).collect());
                same.starts.clear();
                prop_assert_eq!(&demands, &same);
                for (index, step) in steps.iter().enumerate() {
                    prop_assert_eq!(&*same.step(index), step.as_slice());
                }
                same.push_step([1]);
                demands.push_step([1]);
                prop_assert_eq!(demands, same);
            }
        }
    }

    #[test]
    fn slices_are_the_selections_of_their_steps() {
        let singles: Vec<u16> = (0..5000).map(|id| id % 777).collect();
        let narrow = Demands::of_singles(777, singles);
        let mut wide = Demands::new(777);
        narrow.ids().iter().for_each(|&id| wide.push_step([id]));
        for steps in [0..0, 0..5000, 1..2, 2000..4097] {
            for demands in [&narrow, &wide] {
                let mut slices = Vec::new();
                demands.in_slices(steps.clone(), |ids| slices.extend_from_slice(ids));
                assert_eq!(slices, narrow.ids()[steps.clone()]);
            }
        }
    }

    #[test]
    fn ids_belong_to_layers_of_equally_many() {
        let demands = Demands::of_layers(3, 2);
        assert_eq!((demands.universe(), demands.layers()), (6, 3));
        assert_eq!(*demands.layer_of_each(), [0, 0, 1, 1, 2, 2]);
        assert_eq!(*Demands::new(2).layer_of_each(), [0, 0]);
    }
}
