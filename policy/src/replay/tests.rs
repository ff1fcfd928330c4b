use super::oracle::{self, Definition};
use super::*;
use crate::policies::{
    Arc, Belady, Fifo, Gdsf, LeastStale, Lfru, Lfu, LfuDecayed, Lru, LruLayer, S3Fifo, Sieve, Static,
    WTinyLfu, s3_fifo, w_tiny_lfu,
};
use crate::rule::KeepNone;
use proptest::prelude::*;
use std::cell::RefCell;

/// A rule that writes down what it evicts.
struct Recorded<'a, R> {
    rule: R,
    evicted: &'a RefCell<Vec<u32>>,
}

impl<R: Rule> Rule for Recorded<'_, R> {
    fn contains(&self, id: u32) -> bool {
        self.rule.contains(id)
    }
    fn incoming(&mut self, id: u32, now: u64) {
        self.rule.incoming(id, now);
    }
    fn touch(&mut self, id: u32, now: u64) {
        self.rule.touch(id, now);
    }
    fn insert(&mut self, id: u32, now: u64) {
        self.rule.insert(id, now);
    }
    fn miss(&mut self, id: u32, now: u64) {
        self.rule.miss(id, now);
    }
    fn evict<K: Keep>(&mut self, now: u64, keep: &K) -> Option<u32> {
        let victim = self.rule.evict(now, keep);
        self.evicted.borrow_mut().extend(victim);
        victim
    }
    fn remove(&mut self, id: u32) {
        self.rule.remove(id);
    }
    fn reset(&mut self) {
        self.rule.reset();
    }
}

/// Runs a rule, or a rule that is written down.
trait Run {
    type Output;
    fn run<R: Rule>(&self, input: &ReplayInput, rule: R) -> Self::Output;
}

struct Plain;

impl Run for Plain {
    type Output = ReplayResult;
    fn run<R: Rule>(&self, input: &ReplayInput, rule: R) -> ReplayResult {
        input.run(rule)
    }
}

struct Recording;

impl Run for Recording {
    type Output = (ReplayResult, Vec<u32>);
    fn run<R: Rule>(&self, input: &ReplayInput, rule: R) -> (ReplayResult, Vec<u32>) {
        let evicted = RefCell::default();
        let result = input.run(Recorded { rule, evicted: &evicted });
        (result, evicted.into_inner())
    }
}

fn run<O: Run>(how: O, definition: Definition, input: &ReplayInput) -> O::Output {
    let ReplayInput { demands, capacity, order, .. } = *input;
    let (universe, layer_of) = (demands.universe(), || demands.layer_of_each());
    match definition {
        Definition::Fifo => how.run(input, Fifo::new(universe)),
        Definition::Lru => how.run(input, Lru::new(universe)),
        Definition::LruLayer => how.run(input, LruLayer::new(layer_of(), capacity)),
        Definition::Lfu => how.run(input, Lfu::new(universe, order)),
        Definition::InCacheLfu => how.run(input, Lfu::in_cache(universe, order)),
        Definition::LfuDecayed => {
            how.run(input, LfuDecayed::new(universe, oracle::HALF_LIFE * capacity.max(1) as f64))
        }
        Definition::Lfru => how.run(input, Lfru::new(universe)),
        Definition::Sieve => how.run(input, Sieve::new(universe)),
        Definition::S3Fifo => {
            how.run(input, S3Fifo::new(universe, s3_fifo::Sizes::new(oracle::S3_FIFO, capacity)))
        }
        Definition::Arc => how.run(input, Arc::new(universe, capacity)),
        Definition::WTinyLfu => {
            let sizes = w_tiny_lfu::Sizes::new(oracle::W_TINY_LFU, capacity);
            how.run(input, WTinyLfu::new(universe, sizes))
        }
        Definition::Gdsf => how.run(input, Gdsf::new(vec![1.0; universe as usize].into_boxed_slice())),
        Definition::LeastStale => how.run(input, LeastStale::new(layer_of())),
        Definition::Static => how.run(input, Static::fit(input.fit.unwrap(), order, capacity)),
        Definition::Belady => match order {
            Order::Access => how.run(input, Belady::of_accesses(demands).unwrap()),
            Order::Atomic => how.run(input, Belady::of_steps(demands).unwrap()),
        },
    }
}

fn fast(definition: Definition, input: &ReplayInput) -> (ReplayResult, Vec<u32>) {
    run(Recording, definition, input)
}

/// Steps of a few ids, repeated ids and empty steps among them, or of one id each; some begin a trace.
fn demands(layers: u32, blocks: u32) -> impl Strategy<Value = Demands> {
    let universe = layers * blocks;
    prop::bool::weighted(0.3).prop_flat_map(move |single| {
        // Two draws, the lesser taken: some ids are demanded more than others.
        let id = (0..universe, 0..universe).prop_map(|(a, b)| a.min(b));
        let (widths, most) = if single { (1..2, 300) } else { (0..7, 120) };
        let step = (prop::bool::weighted(0.1), prop::collection::vec(id, widths));
        prop::collection::vec(step, 0..most).prop_map(move |steps| {
            let mut demands = Demands::of_layers(layers, blocks);
            for (begins, ids) in steps {
                if begins {
                    demands.begin_trace();
                }
                demands.push_step(ids);
            }
            demands
        })
    })
}

fn case() -> impl Strategy<Value = (Demands, Demands, usize, Order, Reset)> {
    (1u32..5, 1u32..14).prop_flat_map(|(layers, blocks)| {
        let order = prop::sample::select(vec![Order::Access, Order::Atomic]);
        let reset = prop::sample::select(vec![Reset::Never, Reset::Trace]);
        (demands(layers, blocks), demands(layers, blocks), 0..(layers * blocks) as usize + 3, order, reset)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_rule_follows_its_definition((demands, fit, capacity, order, reset) in case()) {
        let input = ReplayInput { demands: &demands, fit: Some(&fit), capacity, order, reset, params: &[] };
        for definition in Definition::ALL {
            let expected = oracle::replay(definition, &input);
            prop_assert_eq!(run(Plain, definition, &input), expected.0, "{:?}", definition);
            prop_assert_eq!(fast(definition, &input), expected, "{:?}", definition);
        }
    }

    /// Belady's bound holds access by access for every rule that starts cold, as does the floor of first demands.
    #[test]
    fn no_rule_passes_the_bound((demands, fit, capacity, _, reset) in case()) {
        let order = Order::Access;
        let input = ReplayInput { demands: &demands, fit: Some(&fit), capacity, order, reset, params: &[] };
        let bound = fast(Definition::Belady, &input).0;
        prop_assert!(bound.misses() >= cold_misses(&demands, reset));
        for definition in Definition::ALL.into_iter().filter(|&each| each != Definition::Static) {
            prop_assert!(fast(definition, &input).0.hits <= bound.hits, "{:?}", definition);
        }
    }

    /// A cache as large as the universe misses first demands only.
    #[test]
    fn an_ample_cache_misses_once((demands, fit, _, order, reset) in case()) {
        let capacity = demands.universe() as usize;
        let input = ReplayInput { demands: &demands, fit: Some(&fit), capacity, order, reset, params: &[] };
        for definition in Definition::ALL {
            let expected = if definition == Definition::Static { 0 } else { cold_misses(&demands, reset) };
            prop_assert_eq!(fast(definition, &input).0.misses(), expected, "{:?}", definition);
        }
    }

    /// What a smaller LRU cache holds, a larger one holds too.
    #[test]
    fn lru_caches_are_nested((demands, _, capacity, _, _) in case()) {
        let (mut small, mut large) = (Lru::new(demands.universe()), Lru::new(demands.universe()));
        let (mut small_free, mut large_free) = (capacity, capacity + 1);
        for (now, &id) in (0..).zip(demands.ids().iter()) {
            small.access(id, now, &KeepNone, &mut small_free);
            large.access(id, now, &KeepNone, &mut large_free);
            prop_assert!((0..demands.universe()).all(|id| !small.contains(id) || large.contains(id)));
        }
    }
}

/// What left for another reason is gone, counts again when it comes back, and is never evicted twice.
#[test]
fn removed_ids_are_gone() {
    fn check<R: Rule>(mut rule: R) {
        for id in 0..4 {
            rule.insert(id, u64::from(id));
        }
        rule.remove(1);
        assert!(!rule.contains(1));
        // The oldest, or the newest where new ids have to prove themselves first.
        let first = rule.evict(4, &KeepNone).unwrap();
        assert!([0, 3].contains(&first));
        rule.remove(2);
        rule.insert(1, 4);
        let mut left = [rule.evict(5, &KeepNone), rule.evict(5, &KeepNone)];
        left.sort();
        let mut expected = [Some(1), Some(3 - first)];
        expected.sort();
        assert_eq!((left, rule.evict(5, &KeepNone)), (expected, None));
    }
    let mut demands = Demands::new(4);
    for id in [0, 1, 2, 3, 1] {
        demands.push_step([id]);
    }
    let nothing = Demands::new(4);
    for order in [Order::Access, Order::Atomic] {
        check(Lru::new(4));
        check(Lfu::new(4, order));
        check(Lfu::in_cache(4, order));
        check(Lfru::new(4));
        check(Sieve::new(4));
        check(Static::fit(&nothing, order, 0));
    }
    check(Fifo::new(4));
    check(LruLayer::new([0; 4].into(), 4));
    check(LfuDecayed::new(4, 4.0));
    check(S3Fifo::new(4, s3_fifo::Sizes::new(oracle::S3_FIFO, 4)));
    check(Arc::new(4, 4));
    check(WTinyLfu::new(4, w_tiny_lfu::Sizes::new(oracle::W_TINY_LFU, 4)));
    check(Gdsf::new([1.0; 4].into()));
    check(LeastStale::new([0; 4].into()));
    check(Belady::of_accesses(&demands).unwrap());
    check(Belady::of_steps(&demands).unwrap());
}

/// One step larger than the cache: nothing of it evicts the rest, and what finds no slot passes through.
#[test]
fn a_step_larger_than_the_cache_passes_through() {
    let mut demands = Demands::new(5);
    demands.push_step([4, 3, 3, 2, 1]);
    demands.push_step([1, 2, 3, 4]);
    let input = ReplayInput {
        demands: &demands,
        fit: Some(&demands),
        capacity: 2,
        order: Order::Atomic,
        reset: Reset::Never,
        params: &[],
    };
    for definition in Definition::ALL {
        let (result, evicted) = fast(definition, &input);
        let hits = if definition == Definition::Static { 4 } else { 2 };
        assert_eq!((result, evicted), (ReplayResult { accesses: 8, hits }, vec![]), "{definition:?}");
    }
}
