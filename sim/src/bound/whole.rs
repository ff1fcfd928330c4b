//! The best prices among those that are whole: link time costs all or nothing, and so does memory.
//!
//! Let a *span* be a stretch of slots in which link time costs its full price, and a *point* an instant, in a span or
//! where it begins, whose memory is so dear that what would be kept over it is loaded instead. A use in a span adds its load
//! to the bound if a point lies between it and the block's previous use. A point costs what the memory is worth, a span the
//! compute in it. Spans keep bursts apart that slack stretches would hide. With blocks of one size and a link that is always
//! waited for, the best points are the dual of Belady's rule (IBM Systems Journal 1966), whose solutions are whole numbers:
//! then there is nothing better. Otherwise it is a good start.
//!
//! The best of them are found slot by slot. What the bound is worth with the last point at a, for every a, are the leaves of
//! a tree: a use adds its load to all leaves since its previous use, and a new point goes on from the best leaf.

/// A use with a previous one, or without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    /// The instant after the previous use, zero where there was none.
    pub(super) from: u32,
    /// The slot of the use.
    pub(super) slot: u32,
    /// What it adds if it is loaded.
    pub(super) worth: f64,
    /// Whether it is the block's first.
    pub(super) first: bool,
}

/// Where prices are not nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Whole {
    /// Instants at which memory has a price.
    pub(super) points: Vec<usize>,
    /// Slots in which link time has one.
    pub(super) spans: Vec<std::ops::Range<usize>>,
}

/// How the best that ends in a place came about.
#[derive(Clone, Copy, Debug)]
enum Back {
    /// The last point before, in the same span.
    Point(u32),
    /// The span's first slot, and which of `ended` came before it.
    Begin(u32, Option<u32>),
}

/// What prices inside a span are worth so far.
#[derive(Clone, Copy, Debug)]
struct Within {
    total: f64,
    back: Back,
}

/// The best whole prices. The stretches are in order of their slots; `free` is the cost of a slot, `cost` of a point.
pub(super) fn best(stretches: &[Stretch], free: &[f64], cost: &[f64]) -> Whole {
    let mut tree = Tree::new(cost.len());
    let mut spent = 0.0;
    let mut back = Vec::with_capacity(cost.len());
    // Spans that were worth more, once they ended, than all before: the last slot, and how they came about.
    let mut ended: Vec<(u32, Back)> = Vec::new();
    let mut outside = 0.0;
    // A span without a point.
    let mut fresh = Within { total: f64::NEG_INFINITY, back: Back::Begin(0, None) };
    // The same from the first slot on: first uses cannot have been loaded earlier.
    let mut cold = Within { total: 0.0, ..fresh };
    let mut uses = stretches.iter().peekable();
    for (slot, (&free, &cost)) in (0u32..).zip(free.iter().zip(cost)) {
        if outside > fresh.total {
            fresh = Within { total: outside, back: Back::Begin(slot, (ended.len() as u32).checked_sub(1)) };
        }
        spent += free;
        fresh.total -= free;
        cold.total -= free;
        while let Some(used) = uses.next_if(|used| used.slot == slot) {
            tree.add(used.from as usize, used.worth);
            cold.total += if used.first { used.worth } else { 0.0 };
        }
        let (most, place) = tree.most();
        let going = Within { total: most - spent, back: Back::Point(place) };
        let going = if cold.total > going.total { cold } else { going };
        if going.total > outside {
            outside = going.total;
            ended.push((slot, going.back));
        }
        // What is loaded in the slot before a span is in memory when the span begins: a point may be there too.
        let next =
            Within { total: outside, back: Back::Begin(slot + 1, (ended.len() as u32).checked_sub(1)) };
        let before = [fresh, next]
            .into_iter()
            .fold(going, |best, other| if other.total > best.total { other } else { best });
        back.push(before.back);
        tree.set(slot as usize, before.total - cost + spent);
    }
    trace_back(&back, &ended)
}

fn trace_back(back: &[Back], ended: &[(u32, Back)]) -> Whole {
    let mut whole = Whole::default();
    let mut last = (ended.len() as u32).checked_sub(1);
    while let Some(&(end, mut at)) = last.and_then(|last| ended.get(last as usize)) {
        while let Back::Point(point) = at {
            whole.points.push(point as usize);
            at = back[point as usize];
        }
        let Back::Begin(begin, before) = at else { break };
        whole.spans.push(begin as usize..end as usize + 1);
        last = before;
    }
    whole
}

/// A leaf for each instant: its own base and the weights at it and before.
struct Tree {
    leaves: usize,
    nodes: Vec<Node>,
}

#[derive(Clone, Copy)]
struct Node {
    weight: f64,
    most: f64,
    place: u32,
}

impl Tree {
    fn new(places: usize) -> Tree {
        let leaves = places.next_power_of_two();
        let mut nodes = vec![Node { weight: 0.0, most: f64::NEG_INFINITY, place: 0 }; 2 * leaves];
        for (node, place) in nodes[leaves..].iter_mut().zip(0..) {
            node.place = place;
        }
        Tree { leaves, nodes }
    }

    /// Gives the latest leaf its value.
    fn set(&mut self, place: usize, value: f64) {
        let before = self.nodes[1].weight;
        let node = &mut self.nodes[self.leaves + place];
        node.most = value - before + node.weight;
        self.climb(place);
    }

    /// Adds to all leaves from `place` on, those that come later too.
    fn add(&mut self, place: usize, weight: f64) {
        let node = &mut self.nodes[self.leaves + place];
        node.weight += weight;
        node.most += weight;
        self.climb(place);
    }

    fn climb(&mut self, place: usize) {
        let mut at = (self.leaves + place) / 2;
        while at > 0 {
            let (left, right) = (self.nodes[2 * at], self.nodes[2 * at + 1]);
            let over = left.weight + right.most;
            let (most, place) = if over > left.most { (over, right.place) } else { (left.most, left.place) };
            self.nodes[at] = Node { weight: left.weight + right.weight, most, place };
            at /= 2;
        }
    }

    fn most(&self) -> (f64, u32) {
        (self.nodes[1].most, self.nodes[1].place)
    }
}
