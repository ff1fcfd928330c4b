//! How many layers ahead predictions are made.

/// Where predictions are made anew on the way to a layer: close together where they change fast.
const SPREAD: [usize; 10] = [1, 2, 3, 4, 6, 8, 12, 18, 27, 41];

/// Numbers of layers ahead, ascending. The last is a whole token: every layer is predicted when it has just been seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distances(Vec<usize>);

impl Distances {
    /// From the next layer to at most `most` ahead, at growing intervals, and a whole token ahead.
    pub fn until(most: usize, layers: usize) -> Distances {
        let within = SPREAD.into_iter().take_while(|&ahead| ahead <= most && ahead < layers);
        Distances(within.chain([layers.max(1)]).collect())
    }

    /// From the next layer to a whole token ahead, at growing intervals.
    pub fn spread(layers: usize) -> Distances {
        Distances::until(layers, layers)
    }

    /// At most `most` of them, but always the whole token: the nearest stay.
    pub(super) fn thinned(mut self, most: usize) -> Distances {
        let kept = most.clamp(1, self.0.len()) - 1;
        self.0.drain(kept..self.0.len() - 1);
        self
    }

    /// How many there are; never none.
    #[expect(clippy::len_without_is_empty, reason = "there is always the whole token")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Layers ahead at each, ascending.
    pub fn as_slice(&self) -> &[usize] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_end_with_the_whole_token() {
        assert_eq!(Distances::until(2, 24).as_slice(), [1, 2, 24]);
        assert_eq!(Distances::until(7, 24).as_slice(), [1, 2, 3, 4, 6, 24]);
        assert_eq!(Distances::until(9, 3).as_slice(), [1, 2, 3]);
        assert_eq!(Distances::until(2, 1).as_slice(), [1]);
        assert_eq!(Distances::spread(24).as_slice(), [1, 2, 3, 4, 6, 8, 12, 18, 24]);
        assert_eq!(Distances::spread(24).thinned(3).as_slice(), [1, 2, 24]);
        assert_eq!(Distances::spread(24).thinned(99), Distances::spread(24));
        assert_eq!(Distances::spread(24).thinned(0).as_slice(), [24]);
    }
}
