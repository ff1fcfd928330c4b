use super::costs::Costs;
use super::depths::best_places;
use super::evict::View;
use super::marconi::parts;
use super::*;
use crate::event::{Command, EncodeAt, StateChunk, StateEnd};
use crate::guard::Sensitivity;
use crate::id::{LinkId, TierId};
use crate::machine::{Backing, Link, Processor, Tier};
use crate::model::{Layer, RecurrentState};
use crate::rate::Rate;
use crate::schedule::Book;
use crate::units::{Bandwidth, FlopRate};
use proptest::prelude::*;

const BLOCK: u32 = 256;

/// A hybrid of Marconi's shape: attention, Mamba and feed-forward layers of width `d`, operations and bytes as there.
fn hybrid(d: u64, n: u64, [attention, mamba, feed_forward]: [usize; 3]) -> Model {
    let attends = Layer {
        flops_per_token: 8 * d * d,
        flops_per_pair: 4 * d,
        kv_per_token: Bytes(4 * d),
        ..Layer::default()
    };
    let state = RecurrentState { numbers: d * n, columns: n, convolution: 4 * (2 * d + 2 * n), chunk: BLOCK };
    let recurs = Layer {
        flops_per_token: 12 * d * d + 16 * d * n + 10 * d,
        recurrent: Some(state),
        ..Layer::default()
    };
    let feeds = Layer { flops_per_token: 16 * d * d, ..Layer::default() };
    let layers = [vec![attends; attention], vec![recurs; mamba], vec![feeds; feed_forward]].concat();
    Model { layers, ..Model::default() }
}

/// Fast memory, the host's at 50 GB/s, and a drive behind it at 5 GB/s.
fn machine() -> Machine {
    let tier = |name: &str, class, rate: u64| Tier {
        name: name.into(),
        capacity: Bytes(1 << 40),
        class,
        backing: Backing::Pinned,
        node: None,
        device: None,
        transient: false,
        endurance: None,
        granularity: Bytes(1),
        read: Bandwidth(rate),
        write: Bandwidth(rate),
    };
    let link = |from: u8, to: u8, rate: u64| Link {
        name: format!("{from}>{to}"),
        from: TierId(from),
        to: TierId(to),
        latency: Nanos(1_000),
        submit: Nanos::ZERO,
        rate: Rate::with_half_size(Bandwidth(rate), Bytes(0)),
        duplex: Bandwidth(rate),
        engines: 1,
        opposite: None::<LinkId>,
    };
    let read = Bandwidth(3_000_000_000_000);
    Machine {
        name: "three".into(),
        tiers: vec![
            tier("hbm", Class::Fast, read.0),
            tier("dram", Class::Staged, 200_000_000_000),
            tier("nvme", Class::Cold, 6_000_000_000),
        ],
        links: vec![
            link(0, 1, 50_000_000_000),
            link(1, 0, 50_000_000_000),
            link(1, 2, 5_000_000_000),
            link(2, 1, 5_000_000_000),
        ],
        accelerator: Processor { flops: FlopRate(400_000_000_000_000), read, launch: Nanos(3_000) },
        codecs: vec![],
        host_codecs: vec![],
        near: vec![],
        kernels: vec![],
        peak: None,
        times: vec![],
        peers: None,
        merge: None,
    }
}

fn format(name: &str) -> StateFormat {
    StateFormat::named(name).unwrap()
}

fn pool(tier: u8, states: u64, model: &Model, name: &str) -> PoolSpec {
    let room = Bytes(model.state_bytes(format(name)).0 * states);
    PoolSpec { tier: TierId(tier), room, format: format(name), reduce_to: None }
}

fn spec(place: Place, evict: Eviction, pools: Vec<PoolSpec>) -> CheckpointSpec {
    CheckpointSpec { place, evict, pools }
}

fn checkpoints(model: &Model, spec: CheckpointSpec) -> Checkpoints {
    guarded(model, spec, 1.0)
}

/// Checkpoints of which those are restored whose error is within a budget.
fn guarded(model: &Model, spec: CheckpointSpec, drift_budget: f64) -> Checkpoints {
    let guard = GuardSpec { drift_budget, floors: BTreeMap::new(), sensitivity: Sensitivity::new([]) };
    Checkpoints::new(model, Arc::new(machine()), spec, &guard, (BLOCK, 2048))
}

/// What a move reads is there until it has ended, unless it is being coded where it is.
fn is_there(known: &Checkpoints, chunk: &StateChunk) {
    let entry = known.entries.values().find(|entry| entry.id == chunk.checkpoint).unwrap();
    let (StateEnd::Kept(form), false) = (chunk.from, tier_of(chunk.from) == tier_of(chunk.to)) else {
        return;
    };
    let pool = known.spec.pools.iter().position(|pool| pool.tier == form.tier).unwrap();
    let copy = entry.copies[pool].filter(|copy| copy.ready);
    assert_eq!(copy.map(|copy| copy.format), Some(form.format), "{chunk:?}");
}

fn tier_of(end: StateEnd) -> Option<TierId> {
    if let StateEnd::Kept(form) = end { Some(form.tier) } else { None }
}

/// Lets every move end at once, in chunks; what was asked for is kept in order.
fn settle(known: &mut Checkpoints) -> Vec<StateChunk> {
    let mut asked = Vec::new();
    loop {
        let begun = known.take_begun();
        if begun.is_empty() {
            assert!(known.moves.is_empty());
            return asked;
        }
        for (id, _) in begun {
            loop {
                let chunk = known.hand_over(id, EncodeAt::Source, Bytes(100_000)).unwrap();
                let Command::MoveState(state) = chunk.command else { panic!("{chunk:?}") };
                is_there(known, &state);
                known.landed(id, chunk.len).unwrap();
                asked.push(state);
                if chunk.last {
                    break;
                }
            }
        }
    }
}

/// One request from its admission to the end of its prompt; the tokens that it was spared.
fn serve(known: &mut Checkpoints, at: u64, blocks: &[u64], prompt: u32) -> u32 {
    known.advance(Time(at));
    let kept = prompt.saturating_sub(1) / BLOCK * BLOCK;
    let found = known.find(blocks, kept, prompt);
    let mut passage = known.begin(blocks, prompt, found);
    settle(known);
    known.computed(&mut passage, blocks, prompt, prompt);
    settle(known);
    found.hit.map_or(0, |hit| hit.tokens)
}

fn small() -> Model {
    hybrid(1024, 64, [1, 4, 5])
}

#[test]
fn marconis_score_is_its_formula() {
    // 4 attention, 24 Mamba and 28 feed-forward layers, as in its 7B hybrid; a parent at 2048 tokens, a child at 10240.
    let (d, n, [attention, mamba, feed_forward]) = (4096_u64, 128, [4, 24, 28]);
    let model = hybrid(d, n, [attention, mamba, feed_forward]);
    let pools = vec![pool(0, 4, &model, "fp16")];
    let mut known = checkpoints(&model, spec(Place::Every(8192), Eviction::Lru, pools));
    let blocks: Vec<u64> = (0..40).collect();
    known.advance(Time(1_000_000_000));
    assert!(known.make(7, 2048, None, true) && known.make(39, 10_240, Some(7), false));
    settle(&mut known);
    let view = View {
        entries: &known.entries,
        pools: &known.spec.pools,
        costs: &known.costs,
        reuse: &known.reuse,
        now: Time(5_000_000_000),
        pool: 0,
        newcomer: u64::MAX,
    };
    let entry = &known.entries[&39];
    let found = parts(&view, entry, entry.copies[0].unwrap().bytes);
    let (df, nf) = (d as f64, n as f64);
    let flops = |l: f64| {
        attention as f64 * (8.0 * l * df * df + 4.0 * l * l * df)
            + feed_forward as f64 * 16.0 * l * df * df
            + mamba as f64 * (12.0 * l * df * df + 16.0 * l * df * nf + 10.0 * l * df)
    };
    // The state, and inputs of the convolution, in two bytes each.
    let state = mamba as f64 * (2.0 * df * nf + 8.0 * (2.0 * df + 2.0 * nf));
    let cache = attention as f64 * 4.0 * 8192.0 * df;
    let efficiency = (flops(10_240.0) - flops(2048.0)) / (state + cache);
    assert!((found.efficiency / efficiency - 1.0).abs() < 0.02, "{} for {efficiency}", found.efficiency);
    assert!((found.recency - 1.0 / 4e9).abs() < 1e-12);
    assert_eq!(known.on_path(&blocks, 10_240).map(|(node, _)| node).collect::<Vec<_>>(), [7, 39]);
}

#[test]
fn a_prompt_goes_on_from_the_deepest_checkpoint_that_is_of_use() {
    let model = small();
    let pools = vec![pool(0, 16, &model, "fp16"), pool(1, 16, &model, "int4")];
    let mut known = checkpoints(&model, spec(Place::Branch, Eviction::Lru, pools));
    let first: Vec<u64> = (0..20).collect();
    assert_eq!(serve(&mut known, 1, &first, 20 * BLOCK), 0);
    // The very end of a prompt is computed, so its last checkpoint is a block before.
    assert_eq!(known.entries.keys().copied().collect::<Vec<_>>(), [18]);
    // It parts after 10 blocks, where nothing was kept; so a checkpoint is made there, and helps the next one.
    let other: Vec<u64> = (0..10).chain(100..110).collect();
    assert_eq!(serve(&mut known, 2, &other, 20 * BLOCK), 0);
    let third: Vec<u64> = (0..10).chain(200..210).collect();
    assert_eq!(serve(&mut known, 3, &third, 20 * BLOCK), 10 * BLOCK);
    let figures = known.figures();
    assert_eq!((figures.reusable, figures.restores, figures.recomputes), (2, 1, 1));
    assert_eq!(figures.recomputed_tokens, u64::from(10 * BLOCK));
    // What the cache has lost is of no use.
    known.lost(9);
    assert_eq!(known.find(&third, 19 * BLOCK, 20 * BLOCK).hit.map(|hit| hit.tokens), Some(19 * BLOCK));
    assert_eq!(known.find(&third, 10 * BLOCK, 20 * BLOCK), Found::default());
}

#[test]
fn a_restore_that_takes_longer_than_computing_is_not_made() {
    let model = small();
    let pools = vec![pool(2, 16, &model, "fp32")];
    let mut known = checkpoints(&model, spec(Place::Every(BLOCK), Eviction::Lru, pools));
    let blocks: Vec<u64> = (0..40).collect();
    serve(&mut known, 1, &blocks, 40 * BLOCK);
    let way = known.costs.restore(0, format("fp32"));
    for kept in 1..40 {
        let prompt = 40 * BLOCK;
        let found = known.find(&blocks, kept * BLOCK, prompt);
        let worth = way < known.costs.prefill(0, kept * BLOCK);
        assert_eq!(found.hit.is_some(), worth, "{kept}");
    }
    assert!(
        known.find(&blocks, BLOCK, 40 * BLOCK).hit.is_none()
            && known.find(&blocks, 39 * BLOCK, 40 * BLOCK).hit.is_some()
    );
}

#[test]
fn a_state_is_coded_once() {
    let model = small();
    // Exact in fast memory, where room is made by four bits; from there to the host in eight, unless it has four already.
    let fast = PoolSpec { reduce_to: Some(format("int4")), ..pool(0, 2, &model, "fp16") };
    let pools = vec![fast, pool(1, 64, &model, "int8")];
    let mut known = checkpoints(&model, spec(Place::Branch, Eviction::BenefitPerByte, pools));
    for prompt in 0..40_u64 {
        let blocks: Vec<u64> = (0..8).map(|block| prompt * 100 + block).collect();
        serve(&mut known, prompt + 1, &blocks, 8 * BLOCK);
        for entry in known.entries.values() {
            let formats: Vec<&str> = entry.copies.iter().flatten().map(|copy| copy.format.name()).collect();
            assert!(formats.iter().all(|format| ["fp16", "int8", "int4"].contains(format)), "{formats:?}");
            assert!(
                entry.copies[1]
                    .is_none_or(|copy| copy.format == format("int8") || copy.format == format("int4"))
            );
        }
    }
    assert!(known.figures().pools[0].evictions > 0);
}

#[test]
fn the_guard_has_the_last_word_on_what_is_restored() {
    let model = small();
    // Near in four bits, and far in eight: what is quicker is not what the budget allows.
    let pools = || vec![pool(0, 4, &model, "int4"), pool(1, 4, &model, "int8_g32")];
    let blocks: Vec<u64> = (0..20).collect();
    let found = |budget| {
        let mut known = guarded(&model, spec(Place::Branch, Eviction::Lru, pools()), budget);
        serve(&mut known, 1, &blocks, 20 * BLOCK);
        let found = known.find(&blocks, 19 * BLOCK, 20 * BLOCK);
        serve(&mut known, 2, &blocks, 20 * BLOCK);
        (found.hit.map(|hit| hit.pool), found.vetoed, known.take_vetoed(), known.figures().restores)
    };
    let no = Some(Reason::DriftBudget);
    assert_eq!(found(0.08), (Some(0), None, vec![], 1));
    assert_eq!(found(0.01), (Some(1), no, vec![Reason::DriftBudget], 1));
    assert_eq!(found(0.0), (None, no, vec![Reason::DriftBudget], 0));
}

#[test]
fn a_checkpoint_that_is_lost_while_it_moves_goes_when_it_no_longer_does() {
    let model = small();
    let pools = vec![pool(0, 4, &model, "fp16"), pool(1, 4, &model, "int4")];
    let mut known = checkpoints(&model, spec(Place::Branch, Eviction::Lru, pools));
    let blocks: Vec<u64> = (0..20).collect();
    let mut passage = known.begin(&blocks, 20 * BLOCK, Found::default());
    known.computed(&mut passage, &blocks, 20 * BLOCK, 20 * BLOCK);
    known.lost(18);
    assert!(known.entries[&18].lost && known.take_dropped().is_empty());
    let asked = settle(&mut known);
    assert!(asked.iter().filter(|chunk| chunk.last).count() == 2 && asked.len() > 2);
    assert!(known.entries.is_empty() && known.pools.iter().all(|pool| pool.used == 0));
    assert_eq!(known.take_dropped().len(), 2);
}

#[test]
fn a_restored_copy_stays_where_it_has_come_to() {
    let model = small();
    let chunks = |near: &str, far: &str| {
        let pools = vec![pool(0, 1, &model, near), pool(1, 4, &model, far)];
        let mut known = checkpoints(&model, spec(Place::Branch, Eviction::Lru, pools));
        let of = |prompt: u64| (0..20).map(|block| prompt * 100 + block).collect::<Vec<u64>>();
        // The second one's checkpoint takes the first one's place near by.
        serve(&mut known, 1, &of(1), 20 * BLOCK);
        serve(&mut known, 2, &of(2), 20 * BLOCK);
        let found = known.find(&of(1), 19 * BLOCK, 20 * BLOCK);
        assert_eq!(found.hit.map(|hit| hit.pool), Some(1));
        let passage = known.begin(&of(1), 20 * BLOCK, found);
        assert!(passage.is_restoring());
        let asked = settle(&mut known);
        assert!(known.entries[&118].copies[0].is_some_and(|copy| copy.ready));
        let form = |end: StateEnd| end.form(TierId(0));
        asked
            .into_iter()
            .filter(|chunk| chunk.last)
            .map(|chunk| (form(chunk.from), form(chunk.to)))
            .collect::<Vec<_>>()
    };
    let named = |ends: Vec<(crate::event::StateForm, crate::event::StateForm)>| {
        let name = |form: crate::event::StateForm| (form.tier.0, form.format.name());
        ends.into_iter().map(|(from, to)| (name(from), name(to))).collect::<Vec<_>>()
    };
    // In one format, it crosses once and is expanded from there.
    assert_eq!(named(chunks("int4", "int4")), [((1, "int4"), (0, "int4")), ((0, "int4"), (0, "fp16"))]);
    // What is exact far away is coded for near by when the request has it.
    assert_eq!(named(chunks("int4", "fp16")), [((1, "fp16"), (0, "fp16")), ((0, "fp16"), (0, "int4"))]);
}

#[test]
fn the_least_recently_used_goes_first_and_a_cycle_defeats_it() {
    let model = small();
    let run = |evict| {
        let mut known = checkpoints(&model, spec(Place::Branch, evict, vec![pool(0, 8, &model, "fp16")]));
        for turn in 0..400_u64 {
            let prompt = turn % 12;
            let blocks: Vec<u64> = (0..8).map(|block| prompt * 100 + block).collect();
            serve(&mut known, turn + 1, &blocks, 8 * BLOCK);
        }
        let figures = known.figures();
        figures.restores as f64 / figures.reusable as f64
    };
    assert_eq!(run(Eviction::Lru), 0.0);
    // What is learned of reuse keeps a part of the cycle.
    assert!(run(Eviction::BenefitPerByte) > 0.5, "{}", run(Eviction::BenefitPerByte));
}

#[test]
fn costs_are_those_of_the_machine() {
    let (model, machine) = (small(), machine());
    let pools = vec![pool(0, 1, &model, "fp16"), pool(1, 1, &model, "int4"), pool(2, 1, &model, "int4")];
    let costs = Costs::new(&model, &machine, &spec(Place::Branch, Eviction::Lru, pools), 1 << 20);
    let (coded, served) = (model.state_bytes(format("int4")).0, model.state_bytes(format("fp16")).0);
    let expand = 3_000 + (coded + served) / 3_000;
    let over = |rate: u64| coded * 1_000_000_000 / rate;
    let close = |found: Nanos, expected: u64| found.0.abs_diff(expected) <= 4;
    assert!(close(costs.restore(0, format("fp16")), 3_000 + 2 * served / 3_000));
    assert!(close(costs.restore(1, format("int4")), 1_000 + over(50_000_000_000) + expand));
    assert!(close(costs.restore(2, format("int4")), 2_000 + over(5_000_000_000) + expand));
    // 256 tokens of all layers, and half of their pairs.
    let flops: u64 = model.layers.iter().map(|layer| layer.flops_per_token).sum();
    let operations = 256 * flops + 4 * 1024 * 256 * 256 / 2;
    assert!(close(costs.prefill(0, 256), operations / 400_000));
}

proptest! {
    #[test]
    fn places_are_the_best_there_are(weights in prop::collection::vec(0u32..20, 1..12), count in 0usize..4) {
        let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
        let cost = |places: &[usize]| -> f64 {
            let behind = |depth: usize| places.iter().filter(|&&place| place <= depth).max().copied().unwrap_or(0);
            weights.iter().enumerate().map(|(depth, weight)| weight * (depth - behind(depth)) as f64).sum()
        };
        let mut least = f64::INFINITY;
        for chosen in 0u32..1 << weights.len() {
            let places: Vec<usize> = (1..weights.len()).filter(|place| chosen >> place & 1 == 1).collect();
            if places.len() <= count {
                least = least.min(cost(&places));
            }
        }
        let places = best_places(&weights, count);
        prop_assert!(places.len() <= count && places.is_sorted());
        prop_assert_eq!(cost(&places), least, "{:?}", places);
    }

    #[test]
    fn no_pool_is_ever_too_full_and_books_balance(
        prompts in prop::collection::vec((0u64..6, 1u32..20), 1..60),
        rule in 0usize..3,
        every in 1u32..6,
    ) {
        let model = small();
        let evict = [Eviction::Lru, Eviction::Marconi { alpha: 1.0 }, Eviction::BenefitPerByte][rule];
        let fast = PoolSpec { reduce_to: Some(format("int4")), ..pool(0, 2, &model, "fp16") };
        let pools = vec![fast, pool(1, 3, &model, "int8"), pool(2, 4, &model, "int8")];
        let place = if every > 4 { Place::Optimal(2) } else { Place::Every(every * BLOCK) };
        let mut known = checkpoints(&model, spec(place, evict, pools));
        for (turn, (family, length)) in prompts.into_iter().enumerate() {
            // Prompts of a family are alike for their first half.
            let own = |block: u64| if block < 8 { family * 1000 + block } else { 1_000_000 + turn as u64 * 100 + block };
            let blocks: Vec<u64> = (0..u64::from(length)).map(own).collect();
            serve(&mut known, turn as u64 + 1, &blocks, length * BLOCK);
            for (index, pool) in known.pools.iter().enumerate() {
                let held: u64 = known.entries.values().filter_map(|entry| entry.copies[index]).map(|copy| copy.bytes).sum();
                prop_assert_eq!(held, pool.used);
                prop_assert!(pool.used <= known.spec.pools[index].room.0);
            }
            for (node, entry) in &known.entries {
                let children = known.entries.values().filter(|child| child.parent == Some(*node)).count();
                prop_assert_eq!(entry.children as usize, children, "{}", node);
                prop_assert_eq!((entry.readers, entry.moves), (0, 0));
                prop_assert!(entry.copies.iter().flatten().all(|copy| copy.ready));
                let parent = entry.parent.map(|parent| known.entries[&parent].position);
                prop_assert!(parent.is_none_or(|parent| parent < entry.position));
            }
        }
    }
}
