//! Moves under way, by number.

use crate::id::MoveId;
use std::collections::VecDeque;

/// What is kept of each move under way, oldest first. Moves are numbered as they are begun and mostly end in that order, so
/// that one is found by how far its number is from the first one's, and leaves at little cost.
#[derive(Clone, Debug)]
pub struct UnderWay<T>(VecDeque<(MoveId, T)>);

impl<T> Default for UnderWay<T> {
    fn default() -> UnderWay<T> {
        UnderWay(VecDeque::new())
    }
}

impl<T> UnderWay<T> {
    /// Adds a move that is not there yet.
    pub fn insert(&mut self, id: MoveId, of: T) {
        match self.0.back() {
            Some(&(last, _)) if last > id => {
                let place = self.0.partition_point(|(other, _)| *other < id);
                self.0.insert(place, (id, of));
            }
            _ => self.0.push_back((id, of)),
        }
    }

    /// What is kept of a move.
    #[inline]
    pub fn get(&self, id: MoveId) -> Option<&T> {
        self.place(id).map(|place| &self.0[place].1)
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, id: MoveId) -> Option<&mut T> {
        self.place(id).map(|place| &mut self.0[place].1)
    }

    /// All of them, oldest first, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, of)| of)
    }

    /// Takes a move out.
    pub fn remove(&mut self, id: MoveId) -> Option<T> {
        let place = self.place(id)?;
        let (_, of) = if place == 0 { self.0.pop_front()? } else { self.0.remove(place)? };
        Some(of)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (MoveId, &T)> {
        self.0.iter().map(|(id, of)| (*id, of))
    }

    #[inline]
    fn place(&self, id: MoveId) -> Option<usize> {
        let &(first, _) = self.0.front()?;
        let near = usize::try_from(id.0.checked_sub(first.0)?).ok()?;
        match self.0.get(near) {
            Some((there, _)) if *there == id => Some(near),
            _ => self.0.binary_search_by_key(&id, |(other, _)| *other).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_holds_what_a_map_does(asked in prop::collection::vec((any::<bool>(), 0u64..24), 1..200)) {
            let (mut map, mut under_way) = (BTreeMap::new(), UnderWay::default());
            for (step, (adds, id)) in asked.into_iter().enumerate() {
                let id = MoveId(id);
                if adds && !map.contains_key(&id) {
                    map.insert(id, step);
                    under_way.insert(id, step);
                } else if !adds {
                    prop_assert_eq!(under_way.remove(id), map.remove(&id));
                }
                prop_assert_eq!(under_way.get(id), map.get(&id));
                prop_assert_eq!(under_way.get_mut(id).copied(), map.get(&id).copied());
                prop_assert!(under_way.iter().eq(map.iter().map(|(id, of)| (*id, of))));
            }
        }
    }
}
