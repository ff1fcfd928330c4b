//! The blocks that layer steps need, in time order: what a replay reads and a clairvoyant rule knows.

/// A sequence of layer steps and the dense ids each selects, in stored order. The ids of one step are one atomic
/// demand; an id selected twice in a step is one demanded block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    universe: u32,
    layers: u32,
    ids: Vec<u32>,
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
    pub fn of_singles(universe: u32, ids: Vec<u32>) -> Demands {
        debug_assert!(ids.iter().all(|&id| id < universe), "an id outside 0..{universe}");
        Demands { len: ids.len(), width: 1, ids, starts: vec![0], ..Demands::new(universe) }
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
    pub fn ids(&self) -> &[u32] {
        &self.ids
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
    pub fn step(&self, index: usize) -> &[u32] {
        &self.ids[self.offset(index)..self.offset(index + 1)]
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
                prop_assert_eq!(demands.step(index), step.as_slice());
                prop_assert_eq!(demands.offset(index + 1), demands.offset(index) + step.len());
            }
            let single = !steps.is_empty() && steps.iter().all(|step| step.len() == 1);
            prop_assert_eq!(demands.all_single(), single);
            if single {
                let mut same = Demands::of_singles(64, steps.concat());
                same.starts.clear();
                prop_assert_eq!(demands, same);
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
