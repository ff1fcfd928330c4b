//! Trajectory match: of the last tokens, those whose routing was most like the running token's lately say how it goes on.
//!
//! A token's trajectory is what it chose, layer by layer. A past token scores by the choices that it and the tokens
//! before it share with the running one and those before that, each weighing less the longer ago. The best of them vote,
//! by score, with what they chose at the layers that are still to come. The score is kept for every past token and
//! touched only where a choice is shared: for each expert there is a bitset of the tokens that chose it.

use super::Shape;
use super::lanes::{LANES, Lanes, exp};
use crate::bits::ones;

/// Tokens that are remembered.
const TOKENS: usize = 1024;
const WORDS: usize = TOKENS / WORD;
const WORD: usize = u64::BITS as usize;
/// What a shared choice counts for, one layer step later.
const FADE: f32 = 0.9;
/// A score that is higher by this much is e times the votes.
const SHARPNESS: f32 = 0.65;
/// Tokens that vote.
const VOTERS: usize = 8;
/// How many of the best token's votes the popularity has.
const PRIOR: f32 = 0.25;
/// Scores are in units that grow instead of fading; beyond this they are scaled back.
const LARGEST_UNIT: f32 = 1e12;

/// Blocks there may be at most: a quarter of a KiB is kept of each.
const MAX_BLOCKS: usize = 1 << 16;

/// One of the past tokens that vote.
#[derive(Clone, Copy, Debug, Default)]
struct Voter {
    token: usize,
    votes: f32,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Trajectories {
    shape: Shape,
    /// Words of a set of experts.
    set: usize,
    /// `[token][layer][word]`: the experts chosen.
    chosen: Vec<u64>,
    /// `[layer][expert]`: the tokens that chose it.
    tokens: Vec<[u64; WORDS]>,
    /// For each token, how much its trajectory is like the running one's, times `unit`.
    scores: Vec<f32>,
    /// What a choice shared now counts.
    unit: f32,
    /// The running token.
    running: usize,
    voters: Vec<Voter>,
}

impl Trajectories {
    /// Whether there is memory for that many layers and experts.
    pub(super) fn fits(shape: Shape) -> bool {
        shape.layers.saturating_mul(shape.experts) <= MAX_BLOCKS
    }

    /// Nothing seen.
    pub(super) fn new(shape: Shape) -> Trajectories {
        let set = shape.experts.div_ceil(WORD);
        Trajectories {
            shape,
            set,
            chosen: vec![0; TOKENS * shape.layers * set],
            tokens: vec![[0; WORDS]; shape.layers * shape.experts],
            scores: vec![0.0; TOKENS],
            unit: 1.0,
            running: 0,
            voters: Vec::with_capacity(VOTERS + 1),
        }
    }

    fn set(&self, token: usize, layer: usize) -> std::ops::Range<usize> {
        let from = (token * self.shape.layers + layer) * self.set;
        from..from + self.set
    }

    /// A layer was routed.
    pub(super) fn observe(&mut self, layer: usize, chosen: &[u32], scale: f32) {
        if layer == 0 {
            self.begin_token();
        }
        self.forget(layer);
        self.unit /= FADE;
        if self.unit > LARGEST_UNIT {
            let unit = self.unit;
            self.scores.iter_mut().for_each(|score| *score /= unit);
            self.unit = 1.0;
        }
        // A batch that chooses most of a layer is like every other, and says nothing of how any of its tokens goes on.
        if 2 * chosen.len() > self.shape.experts {
            self.voters.clear();
            return;
        }
        let range = self.set(self.running, layer);
        for &expert in chosen {
            let expert = expert as usize;
            let tokens = &mut self.tokens[layer * self.shape.experts + expert];
            add_to_each(tokens, scale * self.unit, &mut self.scores);
            tokens[self.running / WORD] |= 1 << (self.running % WORD);
            self.chosen[range.clone()][expert / WORD] |= 1 << (expert % WORD);
        }
        self.choose_voters();
    }

    /// The running token becomes a past one: who was like it by now is followed by who is like the next.
    fn begin_token(&mut self) {
        self.running = (self.running + 1) % TOKENS;
        self.scores.rotate_right(1);
        self.scores[self.running] = 0.0;
        self.voters.iter_mut().for_each(|voter| voter.token = (voter.token + 1) % TOKENS);
    }

    /// Makes room for the running token's choices at a layer in the place of the oldest token's.
    fn forget(&mut self, layer: usize) {
        let range = self.set(self.running, layer);
        for (word, set) in self.chosen[range].iter_mut().enumerate() {
            for expert in ones(std::mem::take(set)).map(|expert| expert as usize) {
                let tokens = &mut self.tokens[layer * self.shape.experts + word * WORD + expert];
                tokens[self.running / WORD] &= !(1 << (self.running % WORD));
            }
        }
    }

    /// The tokens of the highest scores.
    fn choose_voters(&mut self) {
        // Those of the last step bound from below what it takes now.
        let known = self.voters.len() == VOTERS;
        let least = self.voters.iter().map(|voter| self.scores[voter.token]).reduce(f32::min);
        let mut least = least.filter(|_| known).unwrap_or(0.0).max(f32::MIN_POSITIVE);
        self.voters.clear();
        for (block, scores) in self.scores.chunks_exact(LANES).enumerate() {
            if !scores.iter().fold(false, |any, &score| any | (score >= least)) {
                continue;
            }
            for (token, &score) in (block * LANES..).zip(scores) {
                if score < least {
                    continue;
                }
                let place = self.voters.partition_point(|voter| voter.votes >= score);
                self.voters.insert(place, Voter { token, votes: score });
                self.voters.truncate(VOTERS);
                if self.voters.len() == VOTERS {
                    least = self.voters[VOTERS - 1].votes;
                }
            }
        }
        let best = self.voters.first().map_or(0.0, |voter| voter.votes);
        for voter in &mut self.voters {
            voter.votes = exp((voter.votes - best) / self.unit * SHARPNESS);
        }
    }

    /// Sets `out` to the share of the votes for each expert at the layer that comes `ahead` layer steps after `layer`, the
    /// last observed: at most two tokens. Where few tokens vote, `popularity` speaks.
    pub(super) fn vote(&self, layer: usize, ahead: usize, popularity: &[Lanes], out: &mut [Lanes]) {
        let (later, target) = ((layer + ahead) / self.shape.layers, (layer + ahead) % self.shape.layers);
        // The newest tokens have not come that far.
        let votes = |voter: &&Voter| (self.running + TOKENS - voter.token) % TOKENS >= later;
        let voters = || self.voters.iter().filter(votes);
        let share = 1.0 / voters().fold(PRIOR, |total, voter| total + voter.votes);
        for (out, popularity) in out.iter_mut().zip(popularity) {
            *out = popularity.map(|p| PRIOR * share * p);
        }
        let out = out.as_flattened_mut();
        for voter in voters() {
            for (word, &set) in
                self.chosen[self.set((voter.token + later) % TOKENS, target)].iter().enumerate()
            {
                for expert in ones(set) {
                    out[word * WORD + expert as usize] += share * voter.votes;
                }
            }
        }
    }
}

/// Adds `value` to the scores of a set of tokens.
fn add_to_each(tokens: &[u64; WORDS], value: f32, scores: &mut [f32]) {
    for (&word, scores) in tokens.iter().zip(scores.chunks_exact_mut(WORD)) {
        for token in ones(word) {
            scores[token as usize] += value;
        }
    }
}
