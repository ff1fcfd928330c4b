//! Max-min fair rates by progressive filling: all flows grow together until a resource is full or a flow has reached its
//! own cap; those stop there and the rest go on growing. Whole numbers throughout, so that the order of the classes does
//! not matter.

use super::class::{Class, Use};

/// The rates, and room to work them out in.
#[derive(Clone, Debug, Default)]
pub(super) struct Filling {
    rates: Vec<u64>,
    rooms: Vec<Room>,
    /// The resources that some flow crosses.
    crossed: Vec<u16>,
    /// The active classes that still grow: their place among the active, and their index.
    growing: Vec<(u16, u16)>,
}

/// What a resource can still give.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    left: u128,
    /// What the flows that still grow take, for each unit of rate.
    weight: u128,
    /// The part of each of these flows, as last worked out.
    share: u64,
    /// `left` or `weight` has changed since.
    stale: bool,
}

impl Filling {
    /// Works out the rate of a flow of each active class, in their order, in whole units, rounded down: no resource
    /// carries more than it can. `uses` tells which resources a class crosses that may become full.
    pub(super) fn fill<'a>(
        &mut self,
        capacity: &[u128],
        classes: &'a [Class],
        active: &[u16],
        uses: impl Fn(&'a Class) -> &'a [Use],
    ) -> &[u64] {
        let of = |index: u16| &classes[usize::from(index)];
        self.rates.clear();
        if let &[only] = active {
            self.rates.push(alone(of(only), capacity, uses(of(only))));
            return &self.rates;
        }
        self.open(capacity, active.iter().map(|&index| (of(index), uses(of(index)))));
        self.rates.resize(active.len(), 0);
        self.growing.clear();
        self.growing.extend((0..).zip(active.iter().copied()));
        let (rates, rooms) = (&mut self.rates, &mut self.rooms);
        while !self.growing.is_empty() {
            let shares = self.crossed.iter().map(|&resource| rooms[usize::from(resource)].share);
            let level = shares.min().unwrap_or(u64::MAX);
            // Caps first: what they leave over raises the level.
            let capped = self.growing.iter().any(|&(_, index)| of(index).cap <= level);
            self.growing.retain(|&(place, index)| {
                let (class, uses) = (of(index), uses(of(index)));
                let full = |used: &Use| rooms[usize::from(used.resource)].share == level;
                let grows = if capped { class.cap > level } else { !uses.iter().any(full) };
                if !grows {
                    let rate = class.cap.min(level);
                    rates[usize::from(place)] = rate;
                    uses.iter()
                        .for_each(|used| rooms[usize::from(used.resource)].give(used, class.len(), rate));
                }
                grows
            });
            self.crossed.retain(|&resource| rooms[usize::from(resource)].divide());
        }
        &self.rates
    }

    /// All room there is, and who wants it.
    fn open<'a>(&mut self, capacity: &[u128], wanted: impl Iterator<Item = (&'a Class, &'a [Use])>) {
        self.rooms.clear();
        self.rooms.extend(capacity.iter().map(|&left| Room { left, ..Room::default() }));
        self.crossed.clear();
        for (class, uses) in wanted {
            for used in uses {
                let room = &mut self.rooms[usize::from(used.resource)];
                if !room.stale {
                    room.stale = true;
                    self.crossed.push(used.resource);
                }
                room.weight += used.of(class.len());
            }
        }
        self.crossed.iter().for_each(|&resource| _ = self.rooms[usize::from(resource)].divide());
    }
}

impl Room {
    /// Gives flows their rate, for good.
    fn give(&mut self, used: &Use, flows: u64, rate: u64) {
        let weight = used.of(flows);
        self.left -= weight * u128::from(rate);
        self.weight -= weight;
        self.stale = true;
    }

    /// Works out the share again, if need be; whether anyone still wants one.
    fn divide(&mut self) -> bool {
        if std::mem::take(&mut self.stale) {
            self.share = if self.weight == 0 { u64::MAX } else { share(self.left, self.weight) };
        }
        self.weight > 0
    }
}

/// The rate where only one class flows.
fn alone(class: &Class, capacity: &[u128], uses: &[Use]) -> u64 {
    let shares = uses.iter().map(|used| share(capacity[usize::from(used.resource)], used.of(class.len())));
    shares.fold(class.cap, u64::min)
}

/// A division of 128 bits costs several times one of 64, and only memories of odd rates need it.
fn share(left: u128, weight: u128) -> u64 {
    match (u64::try_from(left), u64::try_from(weight)) {
        (Ok(left), Ok(weight)) => left / weight,
        _ => u64::try_from(left / weight).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{Bandwidth, Bytes, Time};
    use proptest::prelude::*;

    fn class(cap: u64, flows: u64, uses: &[(u16, u64)]) -> Class {
        let uses = uses.iter().map(|&(resource, weight)| Use { resource, weight }).collect();
        let mut class = Class::new(Bandwidth(cap), uses, 0);
        (0..flows).for_each(|_| class.join(Time(0), Bytes(1), 0));
        class
    }

    proptest! {
        #[test]
        fn every_flow_is_at_its_cap_or_among_the_fastest_of_a_full_resource(
            capacity in proptest::collection::vec(1u64..1 << 50, 6),
            asked in proptest::collection::vec(
                (1u64..1 << 40, 1u64..50, proptest::collection::btree_map(0u16..6, 1u64..1000, 1..4)), 1..12),
        ) {
            let capacity: Vec<u128> = capacity.into_iter().map(|bits| u128::from(bits) << 12).collect();
            let class = |(cap, flows, uses): &(u64, u64, std::collections::BTreeMap<u16, u64>)| {
                class(*cap, *flows, &uses.iter().map(|(&resource, &weight)| (resource, weight)).collect::<Vec<_>>())
            };
            let classes: Vec<Class> = asked.iter().map(class).collect();
            let active: Vec<u16> = (0..classes.len() as u16).collect();
            let mut filling = Filling::default();

            let rates = filling.fill(&capacity, &classes, &active, |class| class.uses(true)).to_vec();
            prop_assert_eq!(rates.len(), classes.len());
            let crossing = |resource: usize| {
                let weight = move |class: &Class| {
                    class.uses(true).iter().filter(|used| usize::from(used.resource) == resource).map(|used| used.weight).sum::<u64>()
                };
                classes.iter().zip(&rates).map(move |(class, &rate)| (rate, u128::from(weight(class)) * u128::from(class.len())))
                    .filter(|(_, weight)| *weight > 0)
            };
            let carried = |resource: usize| crossing(resource).map(|(rate, weight)| u128::from(rate) * weight).sum::<u128>();
            for (resource, &capacity) in capacity.iter().enumerate() {
                prop_assert!(carried(resource) <= capacity);
            }
            for (class, &rate) in classes.iter().zip(&rates) {
                prop_assert!(rate <= class.cap);
                // Full: not even the least unit more for each of its flows.
                let bottleneck = |used: &Use| {
                    let resource = usize::from(used.resource);
                    let unit: u128 = crossing(resource).map(|(_, weight)| weight).sum();
                    carried(resource) + unit > capacity[resource] && crossing(resource).all(|(other, _)| other <= rate)
                };
                prop_assert!(rate == class.cap || class.uses(true).iter().any(bottleneck));
            }
        }
    }
}
