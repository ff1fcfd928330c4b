//! Models of several phases: every step runs the layers of one, so what comes next is certain.

use crate::ROOT;
use crate::homes::shipped;
use crate::small::{self, fast, policies};
use policy::event::Slice;
use policy::phase::{Phase, Work};
use policy::registry::lookup;
use policy::{Bytes, LayerId, Machine, Nanos, Paths, RequestId};
use sim::bound::{StallBound, stall_bound};
use sim::{Case, Keep, Outcome};
use std::path::Path;

/// A desk: a machine small enough to count by hand.
pub(crate) const DESK: &str = "
machine:
  name: desk
  tiers:
    hbm: { class: fast, backing: device, capacity: 1 GiB, granularity: 512 B, read: 100 GB/s, write: 100 GB/s }
    dram: { class: staged, backing: pinned, capacity: 256 MiB, granularity: 64 B, read: 20 GB/s, write: 20 GB/s }
  links:
    pcie: { between: [dram, hbm], forward: 2 GB/s, backward: 2 GB/s, latency: 1.5 us, submit: 700 ns, half_size: 0 B,
      engines: 1, duplex: { forward: 1 GB/s, backward: 1 GB/s } }
  accelerator: { flops: 1 TFLOP/s, read: 50 GB/s, launch: 2 us }
";

/// Two encoders, a transformer with guidance, and a decoder.
pub(crate) const PIPELINE: &str = "{ model_type: pipeline, torch_dtype: bfloat16, image: { width: 128, height: 96 }, phases: {
    words: { tokens: 16, layers: [
      { blocks: { rows: 500, columns: 64, tokens: 0 } },
      { count: 3, attention: { heads: 2, head_dim: 32 }, vectors: 100, blocks: { rows: 64, columns: 64, count: 4 } } ] },
    more_words: { tokens: 9, layers: { count: 2, blocks: { rows: 96, columns: 96 } } },
    transformer: { steps: 4, sequences: 2, tokens: { pixels: 16, text: 16 }, layers: {
      count: 5, attention: { heads: 4, head_dim: 32 }, vectors: 50, blocks: [
        { rows: 128, columns: 128, count: 4, kind: attention },
        { rows: 256, columns: 128, tokens: 1 },
        { rows: 512, columns: 128, tokens: { pixels: 16 } },
        { rows: 128, columns: 512, tokens: { pixels: 16 } } ] } },
    decoder: { tokens: { pixels: 8 }, layers: { count: 2, blocks: { rows: 32, columns: 288, tokens: { pixels: 4 } } } } } }";

/// A case whose fast memory is no larger than what blocks may take of it.
pub(crate) fn desk(text: &str, set: &[(String, String)]) -> Case {
    let text =
        format!("name: desk\n{DESK}{text}\npolicy: predictive\nschedule: {{ chunk: 1 MiB }}\nseed: 7\n");
    let scenario = scenarios::load_text("desk.yaml", &text, set, &sim::resolve::check_policy);
    let mut case =
        Case::from_scenario(&scenario.unwrap_or_else(|wrong| panic!("{}\n{text}", wrong.render(false))))
            .unwrap();
    let mut machine = Machine::clone(&case.machine);
    let fast = fast(&machine);
    machine.tiers[fast.index()].capacity = case.budgets[fast.index()];
    case.machine = machine.into();
    case
}

/// The pipeline alone on the desk.
fn case(hbm: &str, requests: &str, steps: u32) -> Case {
    let text = format!(
        "model: {PIPELINE}
memory: {{ hbm: {hbm} }}
workload: {{ routing: {{ dense: {{ requests: 3 }} }}, requests: {requests} }}"
    );
    desk(&text, &[("model.phases.transformer.steps".to_owned(), steps.to_string())])
}

const CLOSED: &str = "{ closed: { batch: 1 } }";

fn run(case: &Case, policy: &str) -> Outcome {
    let entry = lookup(policy).unwrap();
    case.run(entry, &entry.resolve(&Default::default()).unwrap(), Keep::default(), |_| {}).unwrap()
}

/// Steps of a request, in order: the phase of each.
fn steps(case: &Case) -> Vec<&Phase> {
    let phases = case.model.phases.iter();
    phases.flat_map(|phase| std::iter::repeat_n(phase, phase.work.steps().unwrap() as usize)).collect()
}

/// Compute of a layer for one request: attention over each of its sequences, then every block over its rows.
fn compute(case: &Case, phase: &Phase, layer: u16) -> Nanos {
    let Work::Steps { sequences, tokens, .. } = phase.work else { panic!("a phase of steps") };
    let (layer, processor) = (case.model.layer(LayerId(layer)), case.machine.accelerator);
    let kernel = |bytes: u64, operations: u64| {
        processor.read.time_for(Bytes(bytes)).max(processor.flops.time_for(operations)) + processor.launch
    };
    let (sequences, tokens) = (u64::from(sequences), u64::from(tokens));
    let mixer = kernel(layer.resident.0, sequences * layer.flops_per_pair * tokens * tokens);
    let blocks = &case.model.blocks[layer.first_block.index()..][..layer.blocks as usize];
    let bytes: u64 = blocks.iter().map(|block| block.bytes(block.native).0).sum();
    let operations = blocks.iter().zip(&layer.rows[..]);
    let operations: u64 =
        operations.map(|(block, &rows)| 2 * block.elements() * sequences * u64::from(rows)).sum();
    mixer + kernel(bytes, operations)
}

fn compute_of_a_request(case: &Case) -> Nanos {
    let layers = |phase: &&Phase| phase.layers.clone();
    let steps = steps(case);
    steps.iter().flat_map(|phase| layers(phase).map(|layer| compute(case, phase, layer))).sum()
}

/// The link with the copies of a layer's blocks handed over at once: each pays its submit, all of them the latency once.
fn copies(case: &Case, layer: u16) -> Nanos {
    let paths = Paths::new(&case.machine);
    let link = paths.between(case.home.first(), fast(&case.machine)).unwrap();
    let layer = case.model.layer(LayerId(layer));
    let blocks = &case.model.blocks[layer.first_block.index()..][..layer.blocks as usize];
    blocks.iter().map(|block| link.busy(block.bytes(block.native))).sum::<Nanos>() + link.latency
}

#[test]
fn what_stays_takes_the_sum_of_its_kernels() {
    let case = case("64 MiB", CLOSED, 4);
    for policy in ["lru", "predictive"] {
        let outcome = run(&case, policy);
        let compute = compute_of_a_request(&case);
        let tally = outcome.orchestrator.tally();
        // The first request brings everything in; after that nothing moves.
        assert_eq!(outcome.world.compute_time(), Nanos(3 * compute.0), "{policy}");
        assert_eq!(outcome.world.now().0, 3 * compute.0 + tally.stall_total().0, "{policy}");
        let last = tally.latencies.e2e.range().unwrap().0.0;
        assert!(last.abs_diff(compute.0) <= compute.0 / 1000, "{policy}: {last} for {compute:?}");
        let layers: usize = steps(&case).iter().map(|phase| phase.len() as usize).sum();
        assert_eq!((tally.layer_steps, tally.completed, tally.output_tokens), (3 * layers as u64, 3, 3));
        // An image is the one thing that a request puts out.
        assert_eq!((tally.latencies.tpot.count(), tally.latencies.itl.count()), (0, 0));
        assert_eq!(tally.latencies.ttft.mean(), tally.latencies.e2e.mean());
    }
}

#[test]
fn sequential_offload_takes_copies_and_compute_in_turns() {
    for hbm in ["600 KiB", "64 MiB"] {
        let case = case(hbm, CLOSED, 4);
        let outcome = run(&case, "sequential_offload");
        let stall: Nanos = steps(&case)
            .iter()
            .flat_map(|phase| phase.layers.clone())
            .map(|layer| copies(&case, layer))
            .sum();
        assert_eq!(outcome.orchestrator.tally().stall_total(), Nanos(3 * stall.0), "{hbm}");
        assert_eq!(outcome.world.now().0, 3 * (stall + compute_of_a_request(&case)).0, "{hbm}");
        // One layer at a time, however much room there is.
        let most = case.model.layers.iter().map(|layer| {
            let blocks = &case.model.blocks[layer.first_block.index()..][..layer.blocks as usize];
            blocks.iter().map(|block| block.bytes(block.native).round_up(Bytes(512))).sum::<Bytes>()
        });
        assert_eq!(
            outcome.orchestrator.context().ledger.usage(fast(&case.machine)).peak,
            most.max().unwrap(),
            "{hbm}"
        );
    }
}

#[test]
fn model_offload_takes_each_stage_in_once() {
    let case = case("64 MiB", CLOSED, 4);
    let outcome = run(&case, "model_offload");
    let stall: Nanos = (0..case.model.layers.len() as u16).map(|layer| copies(&case, layer)).sum();
    assert_eq!(outcome.orchestrator.tally().stall_total(), Nanos(3 * stall.0));
    assert_eq!(outcome.world.now().0, 3 * (stall + compute_of_a_request(&case)).0);
}

#[test]
fn group_offload_takes_the_longer_of_compute_and_the_next_layers_copies() {
    let case = case("1200 KiB", CLOSED, 8);
    let outcome = run(&case, "group_offload");
    let steps = steps(&case);
    let layers = || steps.iter().flat_map(|phase| phase.layers.clone().map(move |layer| (phase, layer)));
    let longer: u64 = layers()
        .zip(layers().skip(1).chain(layers().take(1)))
        .map(|((phase, layer), (_, next))| compute(&case, phase, layer).max(copies(&case, next)).0)
        .sum();
    let took = outcome.world.now().0 as f64 / 3.0;
    assert!((0.98..1.02).contains(&(took / longer as f64)), "{took} for {longer}");
}

#[test]
fn no_policy_beats_link_and_compute_and_ours_is_near_them() {
    for hbm in ["700 KiB", "900 KiB", "1200 KiB", "1600 KiB"] {
        let mut case = case(hbm, CLOSED, 40);
        // Moves ahead of demand go one at a time, so that each pays a latency which demands pay together.
        let mut machine = Machine::clone(&case.machine);
        machine.links.iter_mut().for_each(|link| (link.latency, link.submit) = (Nanos::ZERO, Nanos::ZERO));
        case.machine = machine.into();
        let StallBound { stall_s, .. } = stall_bound(&case).unwrap().expect("the clients are closed");
        let compute = 3.0 * compute_of_a_request(&case).as_secs_f64();
        for entry in policies(true) {
            let params = entry.resolve(&Default::default()).unwrap();
            // Some want experts.
            let Ok(outcome) = case.run(entry, &params, Keep::default(), |_| {}) else { continue };
            let over = outcome.world.now().0 as f64 / 1e9 - compute - stall_s;
            assert!(over >= -1e-9, "{} at {hbm}: {over} s", entry.name);
            if entry.name == "predictive" {
                // The bound knows no room that a move under way takes, nor that a layer's blocks are held together: in a memory
                // of some thirty blocks that is worth a few of them a step.
                let paths = Paths::new(&case.machine);
                let link = paths.between(case.home.first(), fast(&case.machine)).unwrap();
                let block = link.busy(case.model.largest_block()).as_secs_f64();
                let steps = 3.0 * steps(&case).len() as f64;
                assert!(over <= 4.0 * block * steps, "{hbm}: {over} s, {block} s a block");
            }
        }
    }
}

#[test]
fn every_policy_serves_every_request_within_its_memory() {
    for requests in
        [CLOSED, "{ closed: { batch: 2, limit: 5 } }", "{ poisson: { rate: 300 /s, batch: 3, limit: 6 } }"]
    {
        let case = case("700 KiB", requests, 3);
        let mut served = 0;
        for entry in policies(case.arrivals.is_closed()) {
            if case.orchestrator(entry, &entry.resolve(&Default::default()).unwrap(), false).is_err() {
                continue;
            }
            // The witness objects to a copy that is not there, to a byte too many, and to a block lost.
            let seen = small::run(&case, entry, case.world(false).unwrap())
                .unwrap_or_else(|wrong| panic!("{} with {requests}: {wrong}", entry.name));
            let tally = seen.orchestrator.tally();
            assert_eq!(tally.completed, tally.arrived, "{}", entry.name);
            assert!(seen.requests.iter().all(|request| request.tokens == 1), "{}", entry.name);
            served += 1;
        }
        assert!(served > 10, "only {served} policies ran");
    }
}

/// FLUX.1-dev on an RTX 4090 with so much memory.
fn flux(hbm: &str) -> Case {
    let path = Path::new(ROOT).join("scenarios/flux-1-dev-4090.yaml");
    let overrides = [("memory.hbm".to_owned(), hbm.to_owned())];
    let scenario = scenarios::load(&path.display().to_string(), &overrides, &sim::resolve::check_policy);
    Case::from_scenario(&scenario.unwrap_or_else(|wrong| panic!("{}", wrong.render(false)))).unwrap()
}

#[test]
fn flux_hides_its_link_once_the_window_allows_it() {
    for hbm in ["8 GiB", "12 GiB", "16 GiB"] {
        let case = flux(hbm);
        let images = |outcome: &Outcome| outcome.world.now().0 as f64 / 1e9 / 4.0;
        let [ours, sequential, whole] =
            ["predictive", "sequential_offload", "model_offload"].map(|policy| run(&case, policy));
        let stalls = |outcome: &Outcome| outcome.orchestrator.tally().stall_total().as_secs_f64();
        let StallBound { stall_s, .. } = stall_bound(&case).unwrap().expect("the clients are closed");
        let took = images(&ours);
        println!(
            "{hbm}: {took:.2} s an image, {:.2} s sequential, {:.2} s whole; stall {:.3} s, at least {stall_s:.3} s",
            images(&sequential),
            images(&whole),
            stalls(&ours)
        );
        assert!(took < 0.5 * images(&sequential) && took < 0.7 * images(&whole), "{hbm}");
        // What does not fit of the transformer crosses the link at every step.
        let steps = 28.0;
        let transformer = case.model.phases.iter().position(|phase| phase.name == "transformer").unwrap();
        let bytes = case.model.blocks.iter().filter(|block| case.model.phase_of(block.layer) == transformer);
        let bytes: Bytes = bytes.map(|block| block.bytes(block.native)).sum();
        let missing = bytes.saturating_sub(case.budgets[fast(&case.machine).index()]);
        let link = Paths::new(&case.machine)
            .between(case.home.first(), fast(&case.machine))
            .unwrap()
            .peak
            .time_for(missing);
        let bound = compute_of_a_request(&case).as_secs_f64().max(steps * link.as_secs_f64());
        assert!((1.0..1.08).contains(&(took / bound)), "{hbm}: {took} s, bound {bound} s");
        if steps * link.as_secs_f64() < compute_of_a_request(&case).as_secs_f64() {
            // The window allows it: at least 95 % of the stalls of taking turns are hidden.
            assert!(stalls(&ours) <= 0.05 * stalls(&sequential), "{hbm}");
        }
    }
}

#[test]
fn more_drift_allowed_never_makes_an_image_take_longer() {
    for hbm in ["8 GiB", "12 GiB"] {
        let took = |budget: &str| {
            let changes = [
                ("memory.hbm", hbm),
                ("guard.drift_budget", budget),
                ("workload.routing", "{ dense: { requests: 2 } }"),
            ];
            let case = shipped("flux-1-dev-fp8-4090", &changes);
            run(&case, "predictive").world.now().0 as f64 / 1e9
        };
        let mut least = f64::INFINITY;
        for budget in ["0 %", "1 %", "2 %", "3 %", "4 %", "5 %"] {
            let seconds = took(budget);
            println!("{hbm}, {budget}: {seconds} s");
            least = least.min(seconds);
            assert!(seconds < 1.02 * least, "{hbm}, {budget}: {seconds} s, {least} s with less");
        }
    }
}

#[test]
fn attention_is_over_whole_sequences() {
    let case = case("64 MiB", CLOSED, 1);
    let transformer = case.model.phases.iter().find(|phase| phase.name == "transformer").unwrap();
    let Work::Steps { sequences, tokens, .. } = transformer.work else { panic!("steps") };
    // 8 x 6 squares of 16 pixels, and 16 of text; two sequences with guidance.
    assert_eq!((sequences, tokens), (2, 64));
    let layer = case.model.layer(LayerId(transformer.layers.start));
    assert!(layer.bidirectional);
    let slice = Slice { request: RequestId(0), cached: 0, tokens, rank: 0 };
    let operators = sim::operators::Operators::new(case.machine.clone(), case.model.clone());
    let part = (LayerId(transformer.layers.start), policy::event::Part::Mixer);
    let kernel = operators.kernel(part, &[slice, slice], 0, &[]);
    assert_eq!(kernel.operations, case.machine.accelerator.flops.time_for(2 * 4 * 4 * 32 * 64 * 64));
}
