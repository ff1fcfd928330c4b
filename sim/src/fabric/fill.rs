//! Max-min fair rates by progressive filling: all flows grow together until a resource is full or a flow has reached its
//! own cap; those stop there and the rest go on growing. Rates are whole numbers, rounded down.
//!
//! Whole numbers below 2^52 are exact in a double, and so is their quotient rounded down: what links carry is worked out
//! as if in integers, at a fraction of the cost.

use super::class::{Class, Use};

/// A class that has no rate yet.
const GROWS: u64 = 0;

/// What flows share.
#[derive(Clone, Debug, Default)]
pub(super) struct Resources {
    /// First those that copies alone can fill.
    capacity: Vec<f64>,
    /// What the flows take of each, for each unit of rate.
    weight: Vec<f64>,
    /// How many copies alone can fill.
    scarce: usize,
    /// The classes that cross each.
    crossing: Vec<Vec<u16>>,
    /// Of every class; as it last was where nothing flows.
    rates: Vec<u64>,
    /// What flows whose rate is known have left over.
    left: Vec<f64>,
    /// What the flows that grow take, for each unit of rate.
    growing: Vec<f64>,
    /// The part of each of these.
    share: Vec<f64>,
}

impl Resources {
    /// Resources that nothing crosses, and what each can give: first those that copies alone can fill, `scarce` of them.
    pub(super) fn new(capacity: Vec<u64>, scarce: usize) -> Resources {
        Resources {
            weight: vec![0.0; capacity.len()],
            share: vec![f64::INFINITY; capacity.len()],
            crossing: vec![Vec::new(); capacity.len()],
            capacity: capacity.into_iter().map(|capacity| capacity as f64).collect(),
            scarce,
            ..Resources::default()
        }
    }

    /// Tells what a class crosses, in place of what it crossed before.
    pub(super) fn set_class(&mut self, index: u16, uses: &[Use]) {
        self.crossing.iter_mut().for_each(|classes| classes.retain(|&other| other != index));
        uses.iter().for_each(|used| self.crossing[usize::from(used.resource)].push(index));
        self.rates.resize(self.rates.len().max(usize::from(index) + 1), u64::MAX);
    }

    /// Changes what a resource can give.
    pub(super) fn set_capacity(&mut self, resource: usize, capacity: u64) {
        self.capacity[resource] = capacity as f64;
    }

    /// A flow comes.
    pub(super) fn add(&mut self, uses: &[Use]) {
        uses.iter().for_each(|used| self.weight[usize::from(used.resource)] += used.weight);
    }

    /// Flows go.
    pub(super) fn remove(&mut self, uses: &[Use], flows: u64) {
        uses.iter().for_each(|used| self.weight[usize::from(used.resource)] -= used.weight * flows as f64);
    }

    /// Works out the rate of a flow of each active class, in whole units, rounded down: no resource carries more than it
    /// can. Where no kernel reads, memories that copies alone cannot fill are left out, and so are caps: that of a path
    /// is what a resource on it gives, up to rounding.
    pub(super) fn fill(&mut self, classes: &[Class], active: &[u16], read: bool) {
        let crossed = if read { self.capacity.len() } else { self.scarce };
        self.left.clear();
        self.left.extend_from_slice(&self.capacity[..crossed]);
        self.growing.clear();
        self.growing.extend_from_slice(&self.weight[..crossed]);
        self.share.resize(crossed, f64::INFINITY);
        active.iter().for_each(|&class| self.rates[usize::from(class)] = GROWS);
        let mut growing = active.len();
        while growing > 0 {
            let level = self.level();
            let stopped = if read { self.stop_capped(classes, active, level) } else { 0 };
            // Caps first: what they leave over raises the level.
            growing -= if stopped > 0 { stopped } else { self.stop_full(classes, level, read) };
        }
    }

    /// How far all that grow can grow.
    fn level(&mut self) -> f64 {
        let rooms = self.left.iter().zip(&self.growing);
        let mut least = f64::INFINITY;
        for (share, (&left, growing)) in self.share.iter_mut().zip(rooms) {
            // Without a branch: where nothing grows the share is infinite, even of nothing.
            let left = if left > f64::MIN_POSITIVE { left } else { f64::MIN_POSITIVE };
            *share = left / growing;
            least = if *share < least { *share } else { least };
        }
        least
    }

    /// Works out the rate where one class flows. The memories on its way are in its total, exactly; of the links, the
    /// first of the resources, some may be narrower by now.
    pub(super) fn fill_alone(&mut self, index: u16, class: &Class, links: usize) {
        let (crossed, flows) =
            (class.uses(false).iter().map(|used| usize::from(used.resource)), class.len().max(1));
        let narrowest = crossed.filter(|&place| place < links).map(|place| self.capacity[place] as u64).min();
        let total = narrowest.map_or(class.total, |width| width.min(class.total));
        self.rates[usize::from(index)] = (total / flows).clamp(GROWS + 1, class.cap);
    }

    /// The rate of a class, as last worked out.
    pub(super) fn rate(&self, class: u16) -> u64 {
        self.rates[usize::from(class)]
    }

    /// Stops the classes that have reached their caps; how many.
    fn stop_capped(&mut self, classes: &[Class], active: &[u16], level: f64) -> usize {
        let mut stopped = 0;
        for &index in active {
            let class = &classes[usize::from(index)];
            if self.rates[usize::from(index)] == GROWS && class.cap as f64 <= level {
                self.stop(index, class, class.cap, true);
                stopped += 1;
            }
        }
        stopped
    }

    /// Stops the classes that cross a resource which is full at this level; how many.
    fn stop_full(&mut self, classes: &[Class], level: f64, read: bool) -> usize {
        let mut stopped = 0;
        let whole = level as u64;
        for resource in 0..self.share.len() {
            if self.share[resource] != level {
                continue;
            }
            for at in 0..self.crossing[resource].len() {
                let index = self.crossing[resource][at];
                if self.rates[usize::from(index)] == GROWS {
                    let class = &classes[usize::from(index)];
                    self.stop(index, class, whole.min(class.cap), read);
                    stopped += 1;
                }
            }
        }
        stopped
    }

    /// Gives the flows of a class their rate. Zero would never end: the least rate is the unit of the fixed point.
    fn stop(&mut self, index: u16, class: &Class, rate: u64, read: bool) {
        self.rates[usize::from(index)] = rate.max(GROWS + 1);
        let (flows, rate) = (class.len() as f64, rate as f64);
        for used in class.uses(read) {
            let (resource, weight) = (usize::from(used.resource), used.weight * flows);
            self.left[resource] -= weight * rate;
            self.growing[resource] -= weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::{Bandwidth, Bytes, Time};
    use proptest::prelude::*;

    fn class(cap: u64, flows: u64, uses: &[(u16, u64)]) -> Class {
        let uses = uses.iter().map(|&(resource, weight)| Use { resource, weight: weight as f64 }).collect();
        let mut class = Class::new(Bandwidth(cap), Bandwidth(cap), uses, 0);
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

            let class = |(cap, flows, uses): &(u64, u64, std::collections::BTreeMap<u16, u64>)| {
                class(*cap, *flows, &uses.iter().map(|(&resource, &weight)| (resource, weight)).collect::<Vec<_>>())
            };
            let classes: Vec<Class> = asked.iter().map(class).collect();
            let active: Vec<u16> = (0..classes.len() as u16).collect();
            let mut resources = Resources::new(capacity.clone(), capacity.len());
            for (index, class) in (0..).zip(&classes) {
                resources.set_class(index, class.uses(true));
                (0..class.len()).for_each(|_| resources.add(class.uses(true)));
            }
            resources.fill(&classes, &active, true);

            let rates: Vec<u64> = active.iter().map(|&class| resources.rate(class)).collect();
            prop_assert_eq!(rates.len(), classes.len());
            let crossing = |resource: usize| {
                let weight = move |class: &Class| {
                    class.uses(true).iter().filter(|used| usize::from(used.resource) == resource).map(|used| used.weight as u64).sum::<u64>()
                };
                classes.iter().zip(&rates).map(move |(class, &rate)| (rate, u128::from(weight(class)) * u128::from(class.len())))
                    .filter(|(_, weight)| *weight > 0)
            };
            let carried = |resource: usize| crossing(resource).map(|(rate, weight)| u128::from(rate) * weight).sum::<u128>();
            for (resource, &capacity) in capacity.iter().enumerate() {
                prop_assert!(carried(resource) <= u128::from(capacity));
            }
            for (class, &rate) in classes.iter().zip(&rates) {
                prop_assert!(rate <= class.cap);
                // Full: not even the least unit more for each of its flows.
                let bottleneck = |used: &Use| {
                    let resource = usize::from(used.resource);
                    let unit: u128 = crossing(resource).map(|(_, weight)| weight).sum();
                    carried(resource) + unit > u128::from(capacity[resource]) && crossing(resource).all(|(other, _)| other <= rate)
                };
                prop_assert!(rate == class.cap || class.uses(true).iter().any(bottleneck));
            }
        }
    }
}
