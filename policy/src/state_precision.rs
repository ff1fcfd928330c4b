//! Error-gated dynamic precision: bits for each tile of a recurrent state, a tile being one head of one layer, by the error that was
//! measured on it.
//!
//! Least bytes are wanted with which the weighted squared error of all tiles stays within a share of their weighted squared norm. An
//! error lives on in a head as long as the head remembers, so a tile weighs `1 / (1 - d^2)` with `d` the mean decay of a token. All
//! tiles begin in the fewest bits; what takes away most error for a byte is raised, until the sum of the measured errors passes
//! the gate. In the limit of many bits that is reverse water-filling, so choosing by entropy gives the same.

/// One way to code a tile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coding {
    /// Bytes it takes.
    pub bytes: u64,
    /// Squared error against the tile as it was computed, measured.
    pub squared_error: f64,
}

/// One tile, and the ways to code it: bytes rise from one to the next.
#[derive(Clone, Debug, PartialEq)]
pub struct Tile {
    /// How long an error in it lives.
    pub weight: f64,
    /// Its squared norm.
    pub squared_norm: f64,
    /// The ways to code it, fewest bytes first.
    pub codings: Vec<Coding>,
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The place of each tile's coding among its own.
    pub codings: Vec<usize>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// The weighted error that was measured, as a share of the weighted norm.
    pub error: f64,
}

/// The weight of a head that keeps so much of its state at a token, on the mean: the sum of the squares of what is left of an error
/// after each token to come. A head that never forgets is as one that remembers a million tokens.
pub fn weight(decay: f64) -> f64 {
    const LONGEST: f64 = 1e-6;
    1.0 / (1.0 - decay * decay).max(LONGEST)
}

/// The bits of all tiles, with an error of at most `budget` as a share of the norm. `None` where even the most bytes miss it, or a tile
/// has no coding at all.
pub fn error_gated(tiles: &[Tile], budget: f64) -> Option<Choice> {
    let allowed = budget * budget * tiles.iter().map(|tile| tile.weight * tile.squared_norm).sum::<f64>();
    let mut chosen = Chosen { tiles, codings: vec![0; tiles.len()] };
    if tiles.iter().any(|tile| tile.codings.is_empty()) {
        return None;
    }
    while chosen.error() > allowed {
        let (tile, coding) = chosen.best_raise()?;
        chosen.codings[tile] = coding;
    }
    chosen.lower(allowed);
    Some(chosen.finish())
}

struct Chosen<'a> {
    tiles: &'a [Tile],
    codings: Vec<usize>,
}

impl Chosen<'_> {
    fn of(&self, tile: usize) -> Coding {
        self.tiles[tile].codings[self.codings[tile]]
    }

    /// Weighted squared error of all tiles.
    fn error(&self) -> f64 {
        (0..self.tiles.len()).map(|tile| self.tiles[tile].weight * self.of(tile).squared_error).sum()
    }

    /// The tile and the coding that take away most weighted error for a byte more.
    fn best_raise(&self) -> Option<(usize, usize)> {
        let raises = (0..self.tiles.len()).flat_map(|tile| {
            let now = self.of(tile);
            let later = self.tiles[tile].codings.iter().enumerate().skip(self.codings[tile] + 1);
            later.filter_map(move |(coding, raised)| {
                let less = self.tiles[tile].weight * (now.squared_error - raised.squared_error);
                let more = raised.bytes.saturating_sub(now.bytes).max(1) as f64;
                (less > 0.0).then_some((less / more, tile, coding))
            })
        });
        let best = raises.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
        best.map(|(_, tile, coding)| (tile, coding))
    }

    /// Takes back what the last raises made needless, most bytes first.
    fn lower(&mut self, allowed: f64) {
        let mut slack = allowed - self.error();
        loop {
            let lowers = (0..self.tiles.len()).filter(|&tile| self.codings[tile] > 0).filter_map(|tile| {
                let (now, below) = (self.of(tile), self.tiles[tile].codings[self.codings[tile] - 1]);
                let cost = self.tiles[tile].weight * (below.squared_error - now.squared_error);
                (cost <= slack).then_some((now.bytes.saturating_sub(below.bytes), tile, cost))
            });
            let Some((_, tile, cost)) = lowers.max_by_key(|(saved, tile, _)| (*saved, usize::MAX - tile))
            else {
                return;
            };
            self.codings[tile] -= 1;
            slack -= cost;
        }
    }

    fn finish(self) -> Choice {
        let norm: f64 = self.tiles.iter().map(|tile| tile.weight * tile.squared_norm).sum();
        let bytes = (0..self.tiles.len()).map(|tile| self.of(tile).bytes).sum();
        let error = if norm > 0.0 { (self.error() / norm).sqrt() } else { 0.0 };
        Choice { bytes, error, codings: self.codings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tile(weight: f64, squared_norm: f64, errors: [f64; 2]) -> Tile {
        let coding = |bytes, squared_error| Coding { bytes, squared_error };
        Tile {
            weight,
            squared_norm,
            codings: vec![coding(19, errors[0]), coding(35, errors[1]), coding(64, 0.0)],
        }
    }

    #[test]
    fn the_longest_memory_gets_the_most_bits() {
        // Alike, but that an error in the first lives a hundred times as long.
        let tiles =
            [tile(weight(0.995), 1.0, [0.0064, 0.0000176]), tile(weight(0.0), 1.0, [0.0064, 0.0000176])];
        assert!((weight(0.995) / weight(0.0) - 100.25).abs() < 0.01);
        let choice = error_gated(&tiles, 0.02).unwrap();
        assert_eq!(choice.codings, [1, 0]);
        assert!(choice.error <= 0.02 && choice.bytes == 35 + 19);
        assert_eq!(error_gated(&tiles, 0.08).unwrap().codings, [0, 0]);
        assert_eq!(error_gated(&tiles, 0.0).unwrap().codings, [2, 2]);
        assert_eq!(error_gated(&[Tile { codings: vec![], ..tiles[0].clone() }], 1.0), None);
        assert!(weight(1.0).is_finite());
    }

    #[test]
    fn a_budget_that_no_bits_meet_is_none() {
        let coarse =
            Tile { codings: vec![Coding { bytes: 1, squared_error: 0.5 }], ..tile(1.0, 1.0, [0.0; 2]) };
        assert_eq!(error_gated(&[coarse], 0.1), None);
        assert_eq!(error_gated(&[], 0.0).unwrap().bytes, 0);
    }

    proptest! {
        #[test]
        fn the_budget_is_met_with_hardly_more_bytes_than_the_least(
            drawn in prop::collection::vec((1.0f64..1000.0, 0.1f64..10.0, 0.5f64..1.5, 0.5f64..1.5), 1..7),
            budget in 0.0005f64..0.12,
        ) {
            let of = |&(weight, norm, four, eight): &(f64, f64, f64, f64)| {
                tile(weight, norm, [norm * 0.079f64.powi(2) * four, norm * 0.0042f64.powi(2) * eight])
            };
            let tiles: Vec<Tile> = drawn.iter().map(of).collect();
            let choice = error_gated(&tiles, budget).unwrap();
            prop_assert!(choice.error <= budget * (1.0 + 1e-9));
            let allowed: f64 = budget * budget * tiles.iter().map(|tile| tile.weight * tile.squared_norm).sum::<f64>();
            let mut least = u64::MAX;
            for number in 0..3usize.pow(tiles.len() as u32) {
                let codings = (0..tiles.len()).map(|place| tiles[place].codings[number / 3usize.pow(place as u32) % 3]);
                let error: f64 = codings.clone().zip(&tiles).map(|(coding, tile)| tile.weight * coding.squared_error).sum();
                if error <= allowed {
                    least = least.min(codings.map(|coding| coding.bytes).sum());
                }
            }
            // What one tile takes at most more than in the fewest bits.
            prop_assert!(choice.bytes <= least + (64 - 19), "{} for {least}", choice.bytes);
        }
    }
}
