//! Max-min fair rates by progressive filling: all flows grow together until a resource is full or a flow has reached its
//! own cap; those stop there and the rest go on growing. Whole numbers throughout, so that the order of the classes does
//! not matter.

use super::class::{Class, Use};

/// A class that has no rate yet.
const GROWS: u64 = 0;

/// What flows share.
#[derive(Clone, Debug, Default)]
pub(super) struct Resources {
    /// Of every resource, with all flows that cross it.
    whole: Vec<Room>,
    /// The same, without the flows whose rate is known.
    rooms: Vec<Room>,
    /// The links, and the memories that copies alone can fill.
    scarce: Vec<u16>,
    /// All of them.
    all: Vec<u16>,
    /// The classes that cross each.
    crossing: Vec<Vec<u16>>,
    /// Of every class; as it last was where nothing flows.
    rates: Vec<u64>,
    /// The resources whose share is to be worked out again.
    stale: Vec<u16>,
}

/// What a resource can give, and to how many.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    left: u128,
    /// What the flows take, for each unit of rate.
    weight: u128,
    /// The part of each of them, as last worked out: `left / weight`, rounded down.
    share: u64,
    stale: bool,
}

impl Room {
    /// A division of 128 bits costs several times one of 64, and only memories of odd rates need it.
    fn divide(&mut self) {
        self.stale = false;
        self.share = match (u64::try_from(self.left), u64::try_from(self.weight)) {
            (_, Ok(0)) => u64::MAX,
            (Ok(left), Ok(weight)) => left / weight,
            _ => u64::try_from(self.left / self.weight).unwrap_or(u64::MAX),
        };
    }
}

impl Resources {
    /// Resources that nothing crosses: what each can give, and whether copies alone can fill it.
    pub(super) fn new(resources: impl Iterator<Item = (u128, bool)>) -> Resources {
        let mut new = Resources::default();
        for (index, (left, scarce)) in (0..).zip(resources) {
            new.whole.push(Room { left, weight: 0, share: u64::MAX, stale: false });
            new.crossing.push(Vec::new());
            new.all.push(index);
            new.scarce.extend(scarce.then_some(index));
        }
        new
    }

    /// Tells what a class crosses, in place of what it crossed before.
    pub(super) fn set_class(&mut self, index: u16, uses: &[Use]) {
        self.crossing.iter_mut().for_each(|classes| classes.retain(|&other| other != index));
        uses.iter().for_each(|used| self.crossing[usize::from(used.resource)].push(index));
        self.rates.resize(self.rates.len().max(usize::from(index) + 1), u64::MAX);
    }

    /// Changes what a resource can give.
    pub(super) fn set_capacity(&mut self, resource: usize, capacity: u64) {
        self.whole[resource].left = capacity.into();
        self.whole[resource].stale = true;
    }

    /// A flow comes.
    pub(super) fn add(&mut self, uses: &[Use]) {
        for used in uses {
            let room = &mut self.whole[usize::from(used.resource)];
            room.weight += u128::from(used.weight);
            room.stale = true;
        }
    }

    /// Flows go.
    pub(super) fn remove(&mut self, uses: &[Use], flows: u64) {
        for used in uses {
            let room = &mut self.whole[usize::from(used.resource)];
            room.weight -= used.of(flows);
            room.stale = true;
        }
    }

    /// Works out the rate of a flow of each active class, in whole units, rounded down: no resource carries more than it
    /// can. Where no kernel reads, memories that copies alone cannot fill are left out, and so are caps: that of a path
    /// is what a resource on it gives, up to rounding.
    pub(super) fn fill(&mut self, classes: &[Class], active: &[u16], read: bool) {
        self.whole.iter_mut().filter(|room| room.stale).for_each(Room::divide);
        self.rooms.clone_from(&self.whole);
        active.iter().for_each(|&class| self.rates[usize::from(class)] = GROWS);
        let mut growing = active.len();
        while growing > 0 {
            let places = if read { &self.all } else { &self.scarce };
            let level =
                places.iter().map(|&place| self.rooms[usize::from(place)].share).min().unwrap_or(u64::MAX);
            let stopped = if read { self.stop_capped(classes, active, level) } else { 0 };
            // Caps first: what they leave over raises the level.
            growing -= if stopped > 0 { stopped } else { self.stop_full(classes, level, read) };
            for resource in self.stale.drain(..) {
                self.rooms[usize::from(resource)].divide();
            }
        }
    }

    /// The rate of a class, as last worked out.
    pub(super) fn rate(&self, class: u16) -> u64 {
        self.rates[usize::from(class)]
    }

    /// Stops the classes that have reached their caps; how many.
    fn stop_capped(&mut self, classes: &[Class], active: &[u16], level: u64) -> usize {
        let mut stopped = 0;
        for &index in active {
            let class = &classes[usize::from(index)];
            if self.rates[usize::from(index)] == GROWS && class.cap <= level {
                self.stop(index, class, class.cap, true);
                stopped += 1;
            }
        }
        stopped
    }

    /// Stops the classes that cross a resource which is full at this level; how many.
    fn stop_full(&mut self, classes: &[Class], level: u64, read: bool) -> usize {
        let mut stopped = 0;
        for place in 0..if read { self.all.len() } else { self.scarce.len() } {
            let resource = usize::from(if read { self.all[place] } else { self.scarce[place] });
            if self.rooms[resource].share != level {
                continue;
            }
            for at in 0..self.crossing[resource].len() {
                let index = self.crossing[resource][at];
                if self.rates[usize::from(index)] == GROWS {
                    let class = &classes[usize::from(index)];
                    self.stop(index, class, level.min(class.cap), read);
                    stopped += 1;
                }
            }
        }
        stopped
    }

    /// Gives the flows of a class their rate. Zero would never end: the least rate is the unit of the fixed point.
    fn stop(&mut self, index: u16, class: &Class, rate: u64, read: bool) {
        self.rates[usize::from(index)] = rate.max(GROWS + 1);
        for used in class.uses(read) {
            let room = &mut self.rooms[usize::from(used.resource)];
            let weight = used.of(class.len());
            room.left -= weight * u128::from(rate);
            room.weight -= weight;
            if !std::mem::replace(&mut room.stale, true) {
                self.stale.push(used.resource);
            }
        }
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
            let mut resources = Resources::new(capacity.iter().map(|&capacity| (capacity, true)));
            for (index, class) in (0..).zip(&classes) {
                resources.set_class(index, class.uses(true));
                (0..class.len()).for_each(|_| resources.add(class.uses(true)));
            }
            resources.fill(&classes, &active, true);

            let rates: Vec<u64> = active.iter().map(|&class| resources.rate(class)).collect();
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
