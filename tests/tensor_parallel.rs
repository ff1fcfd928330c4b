//! Tensor parallelism: what one of several accelerators has and does, against closed forms.

use policy::event::{Part, Slice};
use policy::machine::Class;
use policy::times::Basis;
use policy::{Bytes, LayerId, Nanos, RequestId};
use scenarios::Scenario;
use sim::operators::Operators;
use sim::provenance::Kind;
use sim::{Case, Keep, Summary, resolve::resolve_policy};

fn scenario(model: &str, tensor: u32, extra: &str) -> Result<Scenario, String> {
    let text = format!(
        "name: parallel
machine: {{ base: h100-sxm, accelerator: {{ launch: 0 ns }} }}
model: {model}
parallel: {{ tensor: {tensor} }}
workload:
  routing: {{ zipf_markov: {{ traces: 2, tokens: 40 }} }}
policy: lru
seed: 3
{extra}"
    );
    scenarios::load_text("parallel.yaml", &text, &[], &sim::resolve::check_policy)
        .map_err(|wrong| wrong.render(false))
}

fn case(model: &str, tensor: u32, extra: &str) -> Case {
    Case::from_scenario(&scenario(model, tensor, extra).unwrap_or_else(|wrong| panic!("{wrong}"))).unwrap()
}

#[test]
fn a_share_of_four_is_a_quarter_of_everything_but_what_is_each_one_s_own() {
    let (one, four) = (case("mixtral-8x7b", 1, ""), case("mixtral-8x7b", 4, ""));
    let quarter = |whole: Bytes, part: Bytes| assert!(part.0.abs_diff(whole.0 / 4) <= 4, "{whole} {part}");
    quarter(one.model.resident_bytes(), four.model.resident_bytes());
    quarter(one.model.largest_block(), four.model.largest_block());
    quarter(one.model.layers[0].kv_per_token, four.model.layers[0].kv_per_token);
    for (before, after) in one.machine.tiers.iter().zip(&four.machine.tiers) {
        match before.class {
            Class::Fast => assert_eq!(before, after),
            _ => quarter(before.capacity, after.capacity),
        }
    }
    let link = |case: &Case, name: &str| {
        case.machine.links.iter().find(|link| link.name == name).unwrap().rate.peak().0
    };
    assert_eq!(link(&four, "pcie"), link(&one, "pcie"));
    assert_eq!(link(&four, "disk"), link(&one, "disk") / 4);
}

#[test]
fn a_layer_takes_its_share_and_two_sums() {
    let (one, four) = (case("mixtral-8x7b", 1, ""), case("mixtral-8x7b", 4, ""));
    let batch = [Slice { request: RequestId(0), cached: 1000, tokens: 1, rank: 0 }];
    let mixer = |case: &Case| {
        let operators = Operators::new(case.machine.clone(), case.model.clone());
        operators.kernel((LayerId(1), Part::Mixer), &batch, 1, &[])
    };
    let (alone, share) = (mixer(&one), mixer(&four));
    assert!(share.bytes.0.abs_diff(alone.bytes.0 / 4) <= 4);
    assert_eq!(alone.summing, Nanos::ZERO);
    // 4096 numbers of 16 bits, moved 2 x 3/4 times at 360 GB/s, after four messages of 5 us; twice.
    let moving = (4096 * 2 * 2 * 3_u64 / 4 * 1_000_000_000).div_ceil(360_000_000_000);
    assert_eq!(share.summing, Nanos(2 * (4 * 5000 + moving)));
}

#[test]
fn sums_are_booked_once_a_layer_and_part_however_blocks_are_waved() {
    let case = case("mixtral-8x7b", 2, "memory: { hbm: 3 slots }\n");
    let (entry, params) = resolve_policy("lru", &Default::default()).unwrap();
    let outcome = case.run(entry, &params, Keep::default(), |_| {}).unwrap();
    let sums = outcome.world.provenance().rows().find(|(kind, ..)| *kind == Kind::AllReduce).unwrap();
    let tally = outcome.orchestrator.tally();
    let steps = tally.layer_steps / 32;
    assert_eq!((sums.1, sums.2.times), (Basis::Fitted, tally.layer_steps + steps));
    let each = case.machine.peers.unwrap().all_reduce(Bytes(4096 * 2));
    assert_eq!(sums.2.time, Nanos(each.0 * (2 * tally.layer_steps + steps)));
    let summary = Summary::new(&case, &outcome, "lru", 0.0);
    assert!((summary.operator_time_share.values().sum::<f64>() - 1.0).abs() < 1e-9);
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let refused = |overrides: &[(&str, &str)], told: &str| {
        let set = [("parallel.tensor", "2")];
        let set = set.iter().chain(overrides);
        let set: Vec<(String, String)> =
            set.map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let wrong =
            scenarios::load("quickstart", &set, &sim::resolve::check_policy).unwrap_err().render(false);
        assert!(wrong.contains(told), "{wrong}");
    };
    refused(&[("machine", "rtx-4090")], "does not say how fast its accelerators send to each other");
    refused(&[("machine", "h100-sxm-pair")], "`peer` is the memory of another accelerator");
    refused(&[("machine", "h100-sxm"), ("parallel.tensor", "3")], "equal shares of 8 key-value heads");
    refused(&[("machine", "h100-sxm"), ("parallel.data", "2")], "unknown key `data`");
    refused(&[("machine", "h100-sxm"), ("parallel.tensor", "0")], "parallel.tensor");
}
