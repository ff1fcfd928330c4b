//! Several models of the routing, mixed by how well each has done.

use super::lanes::{LANES, Lanes, log_odds_of};
use super::mixer::Mixer;
use super::popularity::{Popularity, SCALES};
use super::recent::Recent;
use super::trajectories::Trajectories;
use super::transitions::{Known, Transitions};
use super::{Distances, Predictor, Shape};
use crate::id::LayerId;
use std::ops::Range;

/// Which models take part, beside the popularity that both start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// Layer-to-layer transitions.
    Transitions,
    /// What like tokens did.
    Trajectories,
    /// Both.
    All,
}

/// Visits of a layer until what was said of `later` is seen.
const LATER: usize = 2;
/// The time scale of the popularity that speaks for later visits: the middle one.
const LATER_SCALE: usize = 1;

/// See the module. A row is `shape.width()` lanes.
#[derive(Clone, Debug)]
pub struct Ensemble {
    shape: Shape,
    distances: Distances,
    popularity: Popularity,
    recent: Recent,
    transitions: Option<Transitions>,
    trajectories: Option<Trajectories>,
    /// `[layer][scale]`: log-odds of the popularity.
    odds: Vec<Lanes>,
    /// A mix for each distance and layer.
    next: Mixer,
    /// What each of these mixes last read and came to.
    next_rows: Vec<Lanes>,
    /// A mix for each layer.
    later: Mixer,
    /// `[visit, modulo LATER][layer]`: what each of these read and came to.
    later_rows: Vec<Lanes>,
    /// The distance at which each layer was predicted last.
    newest: Vec<usize>,
    changed: Vec<LayerId>,
    /// A row with 1 for each expert that was chosen now.
    chosen: Vec<Lanes>,
    /// A row with 1 for each expert.
    one: Vec<Lanes>,
}

impl Ensemble {
    /// An ensemble that has seen nothing. A member that would take too much memory is left out, and layers are predicted
    /// at as many of the distances as there is memory for.
    pub fn new(shape: Shape, distances: Distances, members: Members) -> Ensemble {
        let affordable = Transitions::most_distances(shape);
        let with_transitions = members != Members::Trajectories && affordable > 0;
        let with_trajectories = members != Members::Transitions && Trajectories::fits(shape);
        let distances = if with_transitions { distances.thinned(affordable) } else { distances };
        let (one, other) = match (with_transitions, with_trajectories) {
            (true, true) => (0.5, 0.5),
            (one, other) => (f32::from(u8::from(one)), f32::from(u8::from(other))),
        };
        let next = Mixer::new(distances.len() * shape.layers, &[one, other], shape.width());
        let later = Mixer::new(shape.layers, &[0.2 * one, 0.9 * other, 0.2], shape.width());
        let rows = |rows: usize, value: f32| vec![[value; LANES]; rows];
        let mut one = rows(shape.width(), 0.0);
        one.as_flattened_mut()[..shape.experts].fill(1.0);
        Ensemble {
            popularity: Popularity::new(shape),
            recent: Recent::new(shape.layers, shape.experts),
            transitions: with_transitions.then(|| Transitions::new(shape, distances.len())),
            trajectories: with_trajectories.then(|| Trajectories::new(shape)),
            odds: rows(shape.layers * SCALES * shape.width(), 0.0),
            next_rows: rows(distances.len() * shape.layers * next.lanes(), shape.prior()),
            later_rows: rows(LATER * shape.layers * later.lanes(), shape.prior()),
            next,
            later,
            newest: vec![distances.len() - 1; shape.layers],
            changed: Vec::with_capacity(distances.len()),
            chosen: rows(shape.width(), 0.0),
            one,
            distances,
            shape,
        }
    }

    fn odds(&self, layer: usize) -> Range<usize> {
        let size = SCALES * self.shape.width();
        layer * size..(layer + 1) * size
    }

    fn next_rows(&self, mix: usize) -> Range<usize> {
        mix * self.next.lanes()..(mix + 1) * self.next.lanes()
    }

    fn later_rows(&self, visit: u64, layer: usize) -> Range<usize> {
        let cell = (visit % LATER as u64) as usize * self.shape.layers + layer;
        cell * self.later.lanes()..(cell + 1) * self.later.lanes()
    }

    /// What a stage of the transitions starts from, beside the choices, and the rows of its mix. `of` are the rows of
    /// all mixes.
    fn stage<'a>(
        &self,
        of: &'a mut [Lanes],
        odds: &'a [Lanes],
        distance: usize,
        layer: usize,
    ) -> (&'a [Lanes], &'a mut [Lanes]) {
        let rows = self.next_rows(distance * self.shape.layers + layer);
        if distance + 1 == self.distances.len() {
            return (&odds[self.odds(layer)], &mut of[rows]);
        }
        let earlier = self.next_rows((distance + 1) * self.shape.layers + layer).start;
        let (of, later) = of.split_at_mut(earlier);
        (&later[..self.shape.width()], &mut of[rows])
    }

    /// Every model that has predicted what was chosen now learns from it.
    fn learn(&mut self, layer: usize) {
        let width = self.shape.width();
        let mut rows = std::mem::take(&mut self.next_rows);
        for (distance, &ahead) in self.distances.as_slice().iter().enumerate() {
            if self.recent.observed() < ahead {
                break;
            }
            let (before, rows) = self.stage(&mut rows, &self.odds, distance, layer);
            if let Some(transitions) = &mut self.transitions {
                let known = Known { chosen: self.recent.back(ahead - 1), before };
                transitions.learn(distance, layer, known, &rows[..width], &self.chosen);
            }
            self.next.learn(distance * self.shape.layers + layer, rows, &self.chosen, &self.one);
        }
        self.next_rows = rows;
        let visit = self.popularity.observations(LayerId(layer as u16));
        if visit >= LATER as u64 {
            let rows = self.later_rows(visit, layer);
            self.later.learn(layer, &self.later_rows[rows], &self.chosen, &self.one);
        }
    }

    /// Predicts the layers that come after the newest, at each distance.
    fn predict(&mut self, newest: usize) {
        let (layers, width) = (self.shape.layers, self.shape.width());
        let target = |ahead: usize| (newest + ahead) % layers;
        let mut all = std::mem::take(&mut self.next_rows);
        if let Some(trajectories) = &self.trajectories {
            for (distance, &ahead) in self.distances.as_slice().iter().enumerate() {
                let rows = self.next_rows(distance * layers + target(ahead));
                let popularity = self.popularity.mixed(target(ahead));
                trajectories.vote(newest, ahead, popularity, &mut all[rows][width..2 * width]);
            }
        }
        self.changed.clear();
        // The farthest first: what is said of a layer starts from what was said of it earlier.
        for (distance, &ahead) in self.distances.as_slice().iter().enumerate().rev() {
            let layer = target(ahead);
            let (before, rows) = self.stage(&mut all, &self.odds, distance, layer);
            if let Some(transitions) = &mut self.transitions {
                let known = Known { chosen: self.recent.back(0), before };
                transitions.predict(distance, layer, known, &mut rows[..width]);
            }
            if self.trajectories.is_some() {
                rows[width..2 * width].iter_mut().for_each(log_odds_of);
            }
            self.next.mix(distance * layers + layer, rows);
            self.newest[layer] = distance;
            self.changed.push(LayerId(layer as u16));
        }
        self.next_rows = all;
    }

    /// Predicts the visits after the next of the newest layer.
    fn predict_later(&mut self, newest: usize) {
        let (width, layers) = (self.shape.width(), self.shape.layers);
        let visit = self.popularity.observations(LayerId(newest as u16)) - 1;
        let token = self.next_rows((self.distances.len() - 1) * layers + newest).start;
        let middle = self.odds(newest).start + LATER_SCALE * width;
        let rows = self.later_rows(visit, newest);
        let rows = &mut self.later_rows[rows];
        rows[..width].copy_from_slice(&self.next_rows[token..token + width]);
        if let Some(trajectories) = &self.trajectories {
            let said = &mut rows[width..2 * width];
            trajectories.vote(newest, LATER * layers, self.popularity.mixed(newest), said);
            said.iter_mut().for_each(log_odds_of);
        }
        rows[2 * width..3 * width].copy_from_slice(&self.odds[middle..middle + width]);
        self.later.mix(newest, rows);
    }
}

impl Predictor for Ensemble {
    fn observe(&mut self, layer: LayerId, chosen: &[u32], scale: f32) {
        let at = layer.index();
        let row = self.chosen.as_flattened_mut();
        row.fill(0.0);
        chosen.iter().for_each(|&expert| row[expert as usize] = 1.0);
        self.learn(at);
        self.popularity.observe(layer, chosen, scale);
        let odds = self.odds(at);
        self.popularity.log_odds(at, &mut self.odds[odds]);
        self.recent.push(chosen, scale);
        if let Some(trajectories) = &mut self.trajectories {
            trajectories.observe(at, chosen, scale);
        }
        self.predict(at);
        self.predict_later(at);
    }

    fn next_visit(&self, layer: LayerId) -> &[f32] {
        let mix = self.newest[layer.index()] * self.shape.layers + layer.index();
        let from = self.next_rows(mix).end - self.shape.width();
        &self.next_rows[from..].as_flattened()[..self.shape.experts]
    }

    fn later(&self, layer: LayerId) -> &[f32] {
        let visit = self.popularity.observations(layer).saturating_sub(1);
        let from = self.later_rows(visit, layer.index()).end - self.shape.width();
        &self.later_rows[from..].as_flattened()[..self.shape.experts]
    }

    fn changed(&self) -> &[LayerId] {
        &self.changed
    }

    fn observations(&self, layer: LayerId) -> u64 {
        self.popularity.observations(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A router in which layer 1 always chooses the neighbour of layer 0's choice, and layer 0 walks round.
    fn right_of_1000(members: Members) -> usize {
        let shape = Shape { layers: 2, experts: 8, selected: 1 };
        let mut model = Ensemble::new(shape, Distances::until(2, 2), members);
        let mut right = 0;
        for token in 0..2000u32 {
            let first = token * token % 13 % 8;
            model.observe(LayerId(0), &[first], 1.0);
            let next = model.next_visit(LayerId(1));
            assert!(next.iter().all(|p| (0.0..=1.0).contains(p)));
            let best = (0..shape.experts).max_by(|&a, &b| next[a].total_cmp(&next[b])).unwrap();
            right += usize::from(token >= 1000 && best as u32 == (first + 1) % 8);
            model.observe(LayerId(1), &[(first + 1) % 8], 1.0);
        }
        right
    }

    #[test]
    fn every_member_learns_which_expert_follows_which() {
        for members in [Members::Transitions, Members::Trajectories, Members::All] {
            assert_eq!(right_of_1000(members), 1000, "{members:?}");
        }
    }
}
