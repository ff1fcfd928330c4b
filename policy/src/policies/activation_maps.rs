//! A library of activation maps: what each of many past sequences or tokens asked of every block.
//!
//! Stored block by block: one block's values over all maps lie together. So the products of one map with all others are
//! a vector addition for each block that it asks for, and a choice of a few experts out of hundreds costs only those few.

/// Maps of so many values each, up to a number of maps.
#[derive(Clone, Debug)]
pub(super) struct ActivationMaps {
    columns: Vec<f32>,
    capacity: usize,
    len: usize,
}

impl ActivationMaps {
    /// An empty library for `capacity` maps of `values` values.
    pub(super) fn new(values: usize, capacity: usize) -> ActivationMaps {
        ActivationMaps { columns: vec![0.0; values * capacity], capacity, len: 0 }
    }

    /// One value, in every map there is.
    #[inline]
    pub(super) fn column(&self, value: usize) -> &[f32] {
        let from = value * self.capacity;
        &self.columns[from..from + self.len]
    }

    /// Adds to each map's sum its value, `scale` times.
    #[inline]
    pub(super) fn add_scaled(&self, value: usize, scale: f32, sums: &mut [f32]) {
        for (sum, of_map) in sums.iter_mut().zip(self.column(value)) {
            *sum += scale * of_map;
        }
    }

    /// The place of the next map: behind the others, or in the place of `instead` where there is no more room.
    pub(super) fn place(&self, instead: usize) -> usize {
        if self.len < self.capacity { self.len } else { instead }
    }

    /// Keeps a map in a place that [`ActivationMaps::place`] has given.
    pub(super) fn keep(&mut self, place: usize, map: impl Iterator<Item = f32>) {
        for (column, value) in self.columns.chunks_exact_mut(self.capacity).zip(map) {
            column[place] = value;
        }
        self.len = self.len.max(place + 1);
    }
}

/// The place of the greatest value, the first of several; `None` where there is none.
pub(super) fn greatest(values: &[f32]) -> Option<usize> {
    let places = values.iter().enumerate();
    places.max_by(|(a, x), (b, y)| x.total_cmp(y).then(b.cmp(a))).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_library_gives_up_the_map_it_is_told() {
        let mut maps = ActivationMaps::new(2, 2);
        for (instead, map) in [(0, [1.0, 2.0]), (0, [3.0, 4.0]), (1, [5.0, 6.0])] {
            let place = maps.place(instead);
            maps.keep(place, map.into_iter());
        }
        assert_eq!((maps.column(0), maps.column(1)), (&[1.0, 5.0][..], &[2.0, 6.0][..]));
        let mut sums = [0.0; 2];
        maps.add_scaled(0, 2.0, &mut sums);
        maps.add_scaled(1, 1.0, &mut sums);
        assert_eq!(sums, [4.0, 16.0]);
    }

    #[test]
    fn the_first_of_the_greatest_counts() {
        assert_eq!(greatest(&[]), None);
        assert_eq!(greatest(&[0.5, 2.0, -1.0, 2.0]), Some(1));
    }
}
