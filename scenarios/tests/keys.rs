//! What a key says is what the scenario holds, and what contradicts the model or the machine is refused.

use policy::{Bytes, Nanos};
use scenarios::{
    Arrivals, Dense, Diagnostics, Kv, Length, Paged, Prefill, Process, RequestFormat, RequestOrder, Requests,
    Resident, Routing, Scenario, Schedule,
};

const MIXTURE: &str = "\
name: a mixture on a machine
machine: h100-sxm
model: gpt-oss-20b
memory: { hbm: 192 slots }
workload: { routing: { zipf_markov: {} } }
policy: lru
";
/// A dense model: every layer one block.
const DENSE_MODEL: &str = "{ model_type: llama, hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 32, \
                           num_attention_heads: 32, num_key_value_heads: 8, vocab_size: 128256, torch_dtype: bfloat16 }";

fn load(extra: &str, overrides: &[(&str, &str)]) -> Result<Scenario, Diagnostics> {
    let overrides: Vec<_> =
        overrides.iter().map(|(path, value)| (path.to_string(), value.to_string())).collect();
    scenarios::load_text("keys.yaml", &format!("{MIXTURE}{extra}"), &overrides, &|_| Ok(()))
}

fn loaded(extra: &str, overrides: &[(&str, &str)]) -> Scenario {
    load(extra, overrides).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// `path: message (hint)` of the only error.
fn refused(extra: &str, overrides: &[(&str, &str)]) -> String {
    let wrong = load(extra, overrides).map(|_| ()).unwrap_err();
    let [one] = wrong.all() else { panic!("{wrong}") };
    format!("{}: {} ({})", one.path, one.message, one.hint.as_deref().unwrap_or_default())
}

#[test]
fn what_is_left_out_has_its_default() {
    let scenario = loaded("", &[]);
    assert_eq!(scenario.resident, Resident { activations: Bytes::ZERO, fragmentation: 0.0 });
    let schedule = Schedule { chunk: Bytes(1 << 20), background_share: 1.0, spill_share: 0.1 };
    assert_eq!((scenario.schedule, scenario.load), (schedule, None));
    assert_eq!((scenario.workload.prefill, scenario.workload.prompt_tokens), (None, None));
    assert_eq!((scenario.guard.window, scenario.guard.drift_budget, scenario.seed), (256, 0.0, 0));
    let prefill = loaded("", &[("workload.prefill", "{}")]).workload.prefill;
    assert_eq!(prefill, Some(Prefill { chunk: 512 }));
}

#[test]
fn activations_and_fragmentation_are_taken_off_first() {
    let plain = loaded("", &[]);
    let given = loaded("resident: { activations: 2 GiB, fragmentation: 3 % }\n", &[]);
    let hbm = given.fast();
    // So many slots are so many slots; the tier grows instead.
    assert_eq!(given.fast_budget(), plain.fast_budget());
    assert_eq!(given.capacity(hbm), given.resident_floor() + given.fast_budget());
    let used = plain.capacity(hbm) + Bytes(2 << 30);
    assert!((used.0 as f64 / given.capacity(hbm).0 as f64 - 0.97).abs() < 1e-9);
    assert_eq!(given.fragmented(), given.capacity(hbm).saturating_sub(used));
    // A size is the whole tier; the blocks get less.
    let sized = loaded("resident: { fragmentation: 25 % }\n", &[("memory.hbm", "16 GiB"), ("kv", "1 GiB")]);
    assert_eq!(sized.fragmented(), Bytes(4 << 30));
    let floor = sized.model.resident_bytes() + Bytes(5 << 30);
    assert_eq!((sized.resident_floor(), sized.fast_budget()), (floor, Bytes(16 << 30).saturating_sub(floor)));
    assert!(refused("resident: { fragmentation: 100 % }\n", &[]).contains("nothing is left"));
    let full = refused("resident: { activations: 13 GiB }\n", &[("memory.hbm", "16 GiB")]);
    assert!(full.contains("and 13.00 GiB of `resident`") && full.contains("missing"), "{full}");
    let beyond = refused("resident: { fragmentation: 99.99 % }\n", &[]);
    assert!(beyond.contains("hbm has 80.00 GiB"), "{beyond}");
}

#[test]
fn a_cold_start_comes_from_a_tier_that_holds_everything() {
    let scenario = loaded("load: { from: nvme }\n", &[]);
    assert_eq!(scenario.machine.tier(scenario.load.unwrap()).name, "nvme");
    assert!(refused("load: { from: hbm }\n", &[]).starts_with("load.from: the fast tier is what is loaded"));
    assert!(refused("load: { from: disk }\n", &[]).starts_with("load.from: the machine has no tier `disk`"));
    assert!(refused("load: {}\n", &[]).contains("`from` is missing (add `from: nvme`)"));
    let small = refused("load: { from: nvme }\n", &[("memory.nvme", "10 GiB")]);
    assert!(small.starts_with("load.from: the weights and the home copies take 12."), "{small}");
}

#[test]
fn a_schedule_is_shares_and_a_chunk() {
    let given = loaded("schedule: { chunk: 4 MiB, background_share: 0.5, spill_share: 0 }\n", &[]).schedule;
    assert_eq!(given, Schedule { chunk: Bytes(4 << 20), background_share: 0.5, spill_share: 0.0 });
    assert!(refused("schedule: { chunk: 1 B }\n", &[]).contains("at least 4.00 KiB: a page"));
    assert!(refused("schedule: { spill_share: 101 % }\n", &[]).contains("101 % is not between 0 and 1"));
}

#[test]
fn prompts_have_a_length_and_a_chunk() {
    let given = loaded("", &[("workload.prefill.chunk", "256"), ("workload.prompt_tokens", "1000")]).workload;
    assert_eq!(
        (given.prefill, given.prompt_tokens),
        (Some(Prefill { chunk: 256 }), Some(Length::Fixed(1000)))
    );
    assert!(refused("", &[("workload.prefill.chunk", "0")]).starts_with("workload.prefill.chunk: zero"));
    assert!(refused("", &[("workload.prompt_tokens", "-1")]).contains("-1 is negative"));
}

#[test]
fn requests_come_in_an_order() {
    assert_eq!(loaded("", &[]).workload.order, None);
    let shuffled = loaded("", &[("workload.order", "shuffled")]).workload.order;
    assert_eq!(shuffled, Some(RequestOrder::Shuffled));
    let wrong = refused("", &[("workload.order", "shufled")]);
    assert_eq!(wrong, "workload.order: `shufled` is no order (did you mean `shuffled`?)");
}

#[test]
fn routing_goes_with_the_model() {
    let dense = |routing| load("", &[("model", DENSE_MODEL), ("workload.routing", routing)]);
    let scenario = dense("{ dense: { tokens: 32 } }").unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(scenario.workload.routing, Routing::Dense(Dense { requests: 4, tokens: 32 }));
    let routed = dense("{ zipf_markov: {} }").map(|_| ()).unwrap_err();
    assert_eq!(routed.all()[0].message, "the model has no routed experts");
    assert_eq!(routed.all()[0].hint.as_deref(), Some("write `{ dense: { requests: 4, tokens: 256 } }`"));
    let every = refused("", &[("workload.routing", "{ dense: {} }")]);
    assert!(every.starts_with("workload.routing.dense: the model routes tokens to experts"), "{every}");
    let many = dense("{ dense: { requests: 10000000, tokens: 4294967295 } }").map(|_| ()).unwrap_err();
    assert!(many.to_string().contains("at most 4294967295 tokens in all"), "{many}");
}

#[test]
fn requests_are_drawn_or_recorded() {
    let requests = |text: &str| loaded("", &[("workload.requests", text)]).workload.requests;
    let gamma = requests("{ gamma: { rate: 5.53 /s, cv: 1.09, limit: 100 } }");
    let Arrivals::Drawn(Process::Gamma { rate, cv }) = gamma.arrivals else { panic!("gamma") };
    assert_eq!((rate.per_second(), cv, gamma.batch, gamma.limit), (5.53, 1.09, 64, Some(100)));
    let ramp = requests("{ ramp: { from: 0 /s, to: 10 /s, over: 60 s } }");
    let Arrivals::Drawn(Process::Ramp { from, over, .. }) = ramp.arrivals else { panic!("ramp") };
    assert_eq!((from.0, over.0, ramp.limit), (0, 60_000_000_000, None));
    let trace =
        concat!("{ mooncake_jsonl: { path: ", env!("CARGO_MANIFEST_DIR"), "/Cargo.toml, rate_scale: 0.5 } }");
    let Arrivals::Recorded(recording) = requests(trace).arrivals else { panic!("recorded") };
    assert_eq!((recording.format, recording.rate_scale), (RequestFormat::MooncakeJsonl, 0.5));
    assert_eq!((recording.from, recording.until), (Nanos::ZERO, None));
    let thinking = requests("{ closed: { batch: 4, think: 2 s } }").arrivals;
    assert_eq!(thinking, Arrivals::Closed { think: Nanos(2_000_000_000) });
    let closed = loaded("", &[]).workload.requests;
    assert_eq!(closed, Requests { arrivals: Arrivals::Closed { think: Nanos::ZERO }, batch: 1, limit: None });
}

#[test]
fn routing_is_fitted_on_recordings() {
    let trace = concat!("{ fitted: { trace: ", env!("CARGO_MANIFEST_DIR"), "/Cargo.toml } }");
    let Routing::Fitted(fitted) = loaded("", &[("workload.routing", trace)]).workload.routing else {
        panic!("fitted")
    };
    assert_eq!((fitted.traces.len(), fitted.tokens), (1, 20_000));
    let missing = refused("", &[("workload.routing", "{ fitted: { tokens: 9 } }")]);
    assert!(missing.contains("`trace` is missing (add `trace: my-trace.npz`)"), "{missing}");
}

#[test]
fn lengths_are_numbers_or_distributions() {
    let output = |text: &str| loaded("", &[("workload.output_tokens", text)]).workload.output_tokens;
    assert_eq!(
        output("{ lognormal: { mean: 200, p99: 600 } }"),
        Some(Length::Lognormal { mean: 200.0, p99: 600.0 })
    );
    assert_eq!(output("{ uniform: { from: 7, to: 9 } }"), Some(Length::Uniform { from: 7, to: 9 }));
    assert_eq!((output("8"), loaded("", &[]).workload.output_tokens), (Some(Length::Fixed(8)), None));
}

#[test]
fn requests_that_cannot_be_are_refused() {
    let requests = |text: &str| refused("", &[("workload.requests", text)]);
    let absent = requests("{ azure_csv: { path: none.csv } }");
    assert!(
        absent.starts_with("workload.requests.azure_csv.path: no file at none.csv (a path is relative"),
        "{absent}"
    );
    assert!(absent.ends_with("; it is at https://github.com/Azure/AzurePublicDataset)"), "{absent}");
    let absent = requests("{ vllm_json: { path: '${HOTSET_DATA}/none.json' } }");
    assert!(
        absent.contains("(set HOTSET_DATA to the folder that has it, or write another path; `vllm bench"),
        "{absent}"
    );
    let here = concat!("path: ", env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let empty = requests(&format!("{{ csv: {{ {here}, from: 9 s, until: 9 s }} }}"));
    assert_eq!(
        empty,
        "workload.requests.csv: nothing is left: `until` is not after `from` (a later `until`)"
    );
    assert!(requests(&format!("{{ csv: {{ {here}, rate_scale: 0 }} }}")).contains("0 is out of range"));
    assert!(requests("{ gamma: { rate: 4 /s } }").contains("`cv` is missing (add `cv: 2`)"));
    assert!(requests("{ weibull: { rate: 4 /s, shape: -1 } }").contains("-1 is out of range"));
    assert!(requests("{ ramp: { from: 1 /s, to: 0 /s, over: 1 s } }").contains("an arrival rate of zero"));
    assert!(
        requests("{ poisson: { rate: 4 /s, limit: 10000001 } }").contains("too large (at most 10000000)")
    );
    let said = format!("{{ csv: {{ {here} }} }}");
    let twice = refused("", &[("workload.requests", &said), ("workload.output_tokens", "8")]);
    assert!(
        twice.starts_with("workload.output_tokens: the recorded requests say how long they are"),
        "{twice}"
    );
    let length = |text: &str| refused("", &[("workload.prompt_tokens", text)]);
    assert!(
        length("{ lognormal: { mean: 100, p99: 100 } }")
            .contains("no lognormal distribution has a mean of 100")
    );
    assert!(length("{ lognormal: { mean: 100, p99: 1497 } }").contains("at most 14.96 times"));
    assert!(length("{ uniform: { from: 9, to: 8 } }").contains("from 9 to 8 (the shortest first)"));
    assert!(length("1000000000").contains("1000000000 is too large (at most 16777216)"));
    assert!(length("{ lognormal: { mean: 0, p99: 8 } }").contains("0 is out of range"));
}

#[test]
fn a_recipe_takes_the_place_of_home_copies() {
    let mixtral = [("model", "mixtral-8x7b"), ("memory.hbm", "60 GiB")];
    let recipe = "recipe: { low_rank: { rank: 16 } }\n";
    let (plain, made) = (loaded("", &mixtral), loaded(recipe, &mixtral));
    assert!(made.model.blocks.iter().all(|block| block.recipe.is_some()));
    // Each of 32 layers keeps a base of three matrices of 4096 x 14336 in bf16, and of each of 8 experts two factors a matrix.
    let (base, factors) = (2 * 3 * 4096 * 14336, 2 * 3 * 16 * (4096 + 14336));
    let kept = Bytes(32 * (base + 8 * factors));
    assert_eq!(made.model.resident_bytes(), plain.model.resident_bytes() + kept);

    let with = |more: &[(&str, &str)]| refused(recipe, &[&mixtral[..], more].concat());
    assert!(
        with(&[("encoded", "[int8]")]).starts_with("encoded: blocks with a `recipe` have no home copies")
    );
    loaded(recipe, &[&mixtral[..], &[("encoded", "[]")]].concat());
    assert!(with(&[("recipe.low_rank.rank", "5000")]).contains("shorter side is 4096 (at most 4096)"));
    assert!(with(&[("recipe.low_rank.rank", "0")]).starts_with("recipe.low_rank.rank"));
    assert!(refused(recipe, &[]).contains("the blocks are mxfp4"));
    let dense = [("model", DENSE_MODEL), ("memory.hbm", "60 GiB"), ("workload.routing", "{ dense: {} }")];
    assert!(refused(recipe, &dense).contains("a layer's blocks are not alike"));
}

#[test]
fn caches_in_pages_need_room_for_a_page_and_prompts_to_compute_again() {
    let paged = "kv: { paged: { most: 1 GiB } }\n";
    let prefill = [("workload.prefill", "{ chunk: 256 }")];
    let scenario = loaded(paged, &prefill);
    assert_eq!(scenario.kv, Kv::Paged(Paged { page: 16, most: Bytes(1 << 30), prefixes: false, keep: None }));
    assert_eq!(scenario.kv_reserve(), Bytes::ZERO);
    assert!(refused(paged, &[]).starts_with("kv: caches in pages, but prompts are not computed"));
    let with = |more: &[(&str, &str)]| refused(paged, &[&prefill[..], more].concat());
    // 24 layers of 2 * 8 * 64 numbers of two bytes.
    assert!(with(&[("kv.paged.most", "767 KiB")]).contains("cannot hold one page of 768.00 KiB"));
    assert!(with(&[("kv.paged.page", "70000")]).starts_with("kv.paged.page"));
    assert!(with(&[("kv.paged.keep", "60 s")]).contains("`keep` without prefixes"));
    assert!(with(&[("kv.paged.most", "79 GiB")]).starts_with("memory.hbm"));
}

#[test]
fn checkpoints_need_prefixes_and_states_and_prefixes_of_states_need_checkpoints() {
    let hybrid = [
        ("model", "nemotron-h-8b"),
        ("workload.routing", "{ dense: {} }"),
        ("resident", "{ dense: true }"),
        ("memory.hbm", "70 GiB"),
        ("kv", "{ paged: { most: 8 GiB, prefixes: true } }"),
        ("workload.prefill", "{ chunk: 256 }"),
    ];
    let pools = "checkpoints: { pools: { hbm: { room: 4 slots }, dram: { room: 1 GiB, format: int4 } } }\n";
    let scenario = loaded(pools, &hybrid);
    let spec = scenario.checkpoints.as_ref().unwrap();
    // 24 layers of 128 heads of 64 by 128 numbers, and 10240 channels that see 3 tokens, in two bytes.
    let state = Bytes(24 * 2 * (128 * 64 * 128 + 3 * 10_240)).round_up(Bytes(512));
    assert_eq!(spec.pools[0].room, Bytes(4 * state.0));
    assert_eq!(scenario.checkpoint_room(spec.pools[1].tier), Bytes(1 << 30));
    let with = |more: &[(&str, &str)]| refused(pools, &[&hybrid[..], more].concat());
    assert!(refused("", &hybrid).contains("so prefixes are of use only with checkpoints"));
    assert!(with(&[("kv", "8 GiB")]).contains("checkpoints, but no prefixes are kept"));
    assert!(with(&[("checkpoints.pools.hbm.format", "int5")]).contains("no format of states"));
    assert!(with(&[("checkpoints.pools.hbm.room", "1 MiB")]).contains("cannot hold one state"));
    assert!(with(&[("checkpoints.pools.dram.room", "9 TiB")]).starts_with("checkpoints.pools.dram.room"));
    assert!(with(&[("checkpoints.pools.dram.reduce_to", "int8")]).contains("cannot be reduced"));
    assert!(with(&[("checkpoints.pools.tape", "{ room: 1 GiB }")]).contains("no tier `tape`"));
    assert!(with(&[("checkpoints.evict", "random")]).contains("no eviction policy"));
    let attention =
        [("kv", "{ paged: { most: 1 GiB, prefixes: true } }"), ("workload.prefill", "{ chunk: 256 }")];
    assert!(refused(pools, &attention).contains("no recurrent layers"));
    let huge = "{ conversations: { sessions: 1000000, rate: 1 /s, turns: 1000, prefix_tokens: 16777216, block: 1 } }";
    assert!(with(&[("workload.requests", huge)]).contains("blocks in all"));
}
