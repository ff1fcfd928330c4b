//! Phases of a model: layers that run together in a step, and what a request asks of them. A decoder has one, and every step
//! goes through all of its layers. A pipeline has several: text encoders that run once, a transformer that runs for so many
//! denoising steps, an image decoder that runs once. So it is known for certain when each of its layers comes next.

use crate::id::LayerId;
use crate::units::Bytes;
use std::ops::Range;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Its name in the model's file.
    pub name: String,
    /// Its layers, by number, in the order they run.
    pub layers: Range<u16>,
    /// What a request asks of it.
    pub work: Work,
    /// Whose requests go through it, where several models share the machine: those of the model with this number.
    pub tenant: u16,
    /// The output head of its tokens, where several models share the machine: bytes read, and operations a token. Else it is the
    /// model's.
    pub head: Option<(Bytes, u64)>,
    /// The share of the drift budget that a step may use, 0 to 1, at evenly spaced points from a request's first step to its
    /// last, linear between them. Empty: all of it.
    pub tolerance: Vec<f64>,
}

/// What a request asks of a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Work {
    /// Its prompt, in chunks, and then a token a step until its output is complete.
    #[default]
    Tokens,
    /// So many steps, each over whole sequences.
    Steps {
        /// Steps.
        steps: u32,
        /// Sequences of a step: two with classifier-free guidance.
        sequences: u32,
        /// Tokens of each sequence.
        tokens: u32,
    },
}

impl Work {
    /// Steps that a request takes here, where that is known beforehand.
    pub fn steps(self) -> Option<u32> {
        match self {
            Work::Tokens => None,
            Work::Steps { steps, .. } => Some(steps),
        }
    }
}

impl Phase {
    /// How many layers it has.
    pub fn len(&self) -> u32 {
        u32::from(self.layers.end - self.layers.start)
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The share of the drift budget that a step may use of a request that has so many steps left, this one included.
    pub fn tolerance(&self, left: u32) -> f64 {
        let Some((last, steps)) = self.tolerance.len().checked_sub(1).zip(self.work.steps()) else {
            return 1.0;
        };
        let done = f64::from(steps.saturating_sub(left)) / f64::from(steps.saturating_sub(1).max(1));
        let place = done.min(1.0) * last as f64;
        let below = (place as usize).min(last);
        let above = (below + 1).min(last);
        let part = place - below as f64;
        self.tolerance[below] * (1.0 - part) + self.tolerance[above] * part
    }
}

/// When the layers of a model with several phases come next.
#[derive(Clone, Debug, Default)]
pub struct Cadence {
    phases: Vec<Range<u32>>,
    /// For each layer, its phase.
    phase_of: Vec<u16>,
    /// The phase of the running step, and how many of its layers have been routed.
    phase: usize,
    done: u32,
    /// For each phase, the layer steps from the first layer of the running step to its next step after that.
    next: Vec<u32>,
    /// The phases in the order of their next steps.
    order: Vec<usize>,
}

impl Cadence {
    /// The cadence of a model's phases, before the first step; `None` where all layers run in every step.
    pub fn new(phases: &[Phase]) -> Option<Cadence> {
        if phases.len() < 2 {
            return None;
        }
        let of = |(number, phase): (u16, &Phase)| phase.layers.clone().map(move |_| number);
        Some(Cadence {
            phases: phases.iter().map(|phase| phase.layers.start.into()..phase.layers.end.into()).collect(),
            phase_of: (0..).zip(phases).flat_map(of).collect(),
            next: vec![0; phases.len()],
            order: (0..phases.len()).collect(),
            ..Cadence::default()
        })
    }

    /// A step of a phase begins. `next` says for each phase how many layer steps from now its next step after this one comes.
    pub fn begin(&mut self, phase: usize, next: Vec<u32>) {
        (self.phase, self.done, self.next) = (phase, 0, next);
        self.order.sort_by_key(|&phase| (self.next[phase], phase));
    }

    /// A layer of the running step is routed.
    pub fn routed(&mut self, layer: LayerId) {
        self.done = u32::from(layer.0).saturating_sub(self.phases[self.phase].start) + 1;
    }

    /// Layer steps from the one being run to the next visit of a layer: at least one.
    pub fn until(&self, layer: LayerId) -> u32 {
        let phase = usize::from(self.phase_of[layer.index()]);
        let place = u32::from(layer.0) - self.phases[phase].start;
        let begins = if phase == self.phase && place >= self.done { 0 } else { self.next[phase] };
        (begins + place + 1).saturating_sub(self.done).max(1)
    }

    /// The layer that comes in the given place, from 1 on, when all layers are ordered by their next visits.
    pub fn coming(&self, place: u32) -> LayerId {
        let running = &self.phases[self.phase];
        let rest = running.end - running.start - self.done;
        if place <= rest {
            return LayerId((running.start + self.done + place - 1) as u16);
        }
        let mut left = place - rest - 1;
        for &phase in &self.order {
            let Range { start, end } = self.phases[phase];
            let layers = if phase == self.phase { self.done } else { end - start };
            if left < layers {
                return LayerId((start + left) as u16);
            }
            left -= layers;
        }
        LayerId(running.start as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn phases(lengths: &[u16], steps: &[u32]) -> Vec<Phase> {
        let mut first = 0;
        let phase = |(&layers, &steps): (&u16, &u32)| {
            let layers = first..first + layers;
            first = layers.end;
            let work = Work::Steps { steps, sequences: 1, tokens: 1 };
            Phase { name: String::new(), layers, work, tenant: 0, head: None, tolerance: vec![] }
        };
        lengths.iter().zip(steps).map(phase).collect()
    }

    proptest! {
        /// Requests that follow each other through a pipeline: when each layer comes next is what the sequence of all layer
        /// steps says, from every place in it.
        #[test]
        fn the_next_visit_is_that_of_the_sequence(
            shape in prop::collection::vec((1u16..5, 1u32..4), 2..5),
        ) {
            let (lengths, steps): (Vec<u16>, Vec<u32>) = shape.into_iter().unzip();
            let phases = phases(&lengths, &steps);
            let round: Vec<usize> =
                steps.iter().enumerate().flat_map(|(phase, &steps)| vec![phase; steps as usize]).collect();
            let visits: Vec<u16> =
                round.iter().chain(&round).flat_map(|&phase| phases[phase].layers.clone()).collect();
            let mut cadence = Cadence::new(&phases).unwrap();
            let mut at = 0;
            for (number, &phase) in round.iter().enumerate() {
                let coming = round.iter().chain(&round).skip(number + 1);
                let mut next = vec![None; phases.len()];
                let mut from = phases[phase].len();
                for &phase in coming {
                    next[phase].get_or_insert(from);
                    from += phases[phase].len();
                }
                cadence.begin(phase, next.into_iter().map(Option::unwrap).collect());
                for layer in phases[phase].layers.clone() {
                    cadence.routed(LayerId(layer));
                    let layers: u16 = lengths.iter().sum();
                    let until = |layer: u16| visits[at + 1..].iter().position(|&other| other == layer).unwrap() + 1;
                    for layer in 0..layers {
                        prop_assert_eq!(cadence.until(LayerId(layer)) as usize, until(layer));
                    }
                    let mut expected: Vec<u16> = (0..layers).collect();
                    expected.sort_by_key(|&layer| until(layer));
                    let order: Vec<u16> = (1..=u32::from(layers)).map(|place| cadence.coming(place).0).collect();
                    prop_assert_eq!(order, expected);
                    at += 1;
                }
            }
        }
    }

    #[test]
    fn tolerance_is_linear_between_its_points() {
        let mut phase = phases(&[1], &[5]).remove(0);
        assert_eq!(phase.tolerance(3), 1.0);
        phase.tolerance = vec![0.2, 1.0, 0.6];
        let shares: Vec<f64> = (1..=5).rev().map(|left| phase.tolerance(left)).collect();
        let expected = [0.2, 0.6, 1.0, 0.8, 0.6];
        assert!(
            shares.iter().zip(expected).all(|(share, expected)| (share - expected).abs() < 1e-12),
            "{shares:?}"
        );
        phase.work = Work::Steps { steps: 1, sequences: 1, tokens: 1 };
        assert_eq!(phase.tolerance(1), 0.2);
    }
}
