//! How deep prompts are like earlier ones, and the checkpoints at which least is computed again for that.
//!
//! With a weight for each depth, the best places of `m` checkpoints among `n` depths are found in `n m` steps (arXiv
//! 2605.05219): what lies between two places costs `(D_j - D_i) - i (W_j - W_i)`, with sums of weights `W` and of weights times
//! depths `D`, so the best place before each is a lower envelope of lines whose slopes and questions both come in order.

/// Depths are counted in strides; deeper ones count as the deepest.
const MOST_DEPTHS: usize = 4096;

/// The depths so far, and the places that follow from them.
#[derive(Clone, Debug)]
pub(super) struct Depths {
    stride: u32,
    /// How often prompts were alike to so many strides.
    weights: Vec<u64>,
    noted: u64,
    /// The best places, and for how many depths they were worked out.
    places: Vec<u32>,
    known: (u64, u32),
}

impl Depths {
    pub(super) fn new(stride: u32) -> Depths {
        Depths { stride: stride.max(1), weights: Vec::new(), noted: 0, places: Vec::new(), known: (0, 0) }
    }

    /// A prompt was like earlier ones for so many tokens.
    pub(super) fn note(&mut self, tokens: u32) {
        let depth = ((tokens / self.stride) as usize).min(MOST_DEPTHS);
        if depth == 0 {
            return;
        }
        if self.weights.len() <= depth {
            self.weights.resize(depth + 1, 0);
        }
        self.weights[depth] += 1;
        self.noted += 1;
    }

    /// The best places of so many checkpoints, in tokens; worked out again when there are a quarter more depths than last time.
    pub(super) fn best(&mut self, count: u32) -> &[u32] {
        let (noted, of) = self.known;
        if of != count || self.noted > noted + noted / 4 {
            let weights: Vec<f64> = self.weights.iter().map(|&weight| weight as f64).collect();
            let places = best_places(&weights, count as usize);
            self.places = places.into_iter().map(|depth| depth as u32 * self.stride).collect();
            self.known = (self.noted, count);
        }
        &self.places
    }
}

/// The depths, at most `count` of them and none of them zero, at which checkpoints leave least to compute again where `weights`
/// says how often prompts are alike to each depth.
pub(super) fn best_places(weights: &[f64], count: usize) -> Vec<usize> {
    let depths = weights.len();
    let (mut weight, mut moment) = (vec![0.0; depths + 1], vec![0.0; depths + 1]);
    for (depth, &w) in weights.iter().enumerate() {
        weight[depth + 1] = weight[depth] + w;
        moment[depth + 1] = moment[depth] + w * depth as f64;
    }
    // What depths from `i` up to before `j` cost when the last checkpoint is at `i`.
    let between = |i: usize, j: usize| (moment[j] - moment[i]) - i as f64 * (weight[j] - weight[i]);
    // The least cost of all depths before `j`, and where the last checkpoint is, with so many of them.
    let mut least: Vec<f64> = (0..=depths).map(|j| between(0, j)).collect();
    let mut last: Vec<Vec<usize>> = Vec::new();
    for _ in 0..count.min(depths.saturating_sub(1)) {
        let line = |i: usize| Line { slope: -(i as f64), at: least[i] - moment[i] + i as f64 * weight[i] };
        let mut envelope = Envelope::default();
        let (mut next, mut from) = (least.clone(), (0..=depths).map(|_| 0).collect::<Vec<usize>>());
        for j in 1..=depths {
            if j >= 2 {
                envelope.push(j - 1, line(j - 1));
            }
            if let Some((i, cost)) = envelope.least(weight[j]).filter(|&(_, cost)| cost + moment[j] < next[j])
            {
                (next[j], from[j]) = (cost + moment[j], i);
            }
        }
        least = next;
        last.push(from);
    }
    let (mut places, mut j) = (Vec::new(), depths);
    for from in last.iter().rev() {
        if from[j] > 0 {
            j = from[j];
            places.push(j);
        }
    }
    places.reverse();
    places
}

#[derive(Clone, Copy, Debug)]
struct Line {
    slope: f64,
    at: f64,
}

/// Lines with falling slopes, of which the lowest at a point that only grows is asked for.
#[derive(Default)]
struct Envelope {
    lines: std::collections::VecDeque<(usize, Line)>,
}

impl Envelope {
    fn push(&mut self, id: usize, line: Line) {
        while let [.., (_, a), (_, b)] = self.lines.make_contiguous() {
            // The middle line is nowhere the lowest.
            let covered = (line.at - a.at) * (a.slope - b.slope) <= (b.at - a.at) * (a.slope - line.slope);
            if !covered {
                break;
            }
            self.lines.pop_back();
        }
        self.lines.push_back((id, line));
    }

    fn least(&mut self, x: f64) -> Option<(usize, f64)> {
        let value = |line: &Line| line.slope * x + line.at;
        while self.lines.len() > 1 && value(&self.lines[1].1) <= value(&self.lines[0].1) {
            self.lines.pop_front();
        }
        self.lines.front().map(|(id, line)| (*id, value(line)))
    }
}
