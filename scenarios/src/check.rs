//! The top level of a scenario: reads every key, then checks what only the whole can show.

use crate::catalogue::{self, SENSITIVITY};
use crate::checkpoints::{CHECKPOINTS, checkpoints, fits_cache};
use crate::control::{GUARD, SCHEDULE, SLO, guard, policy, schedule, slo};
use crate::diagnostics::{Report, Wrong};
use crate::keys::Type::{Choice, File, Flag, List, Map, Name, Text, Whole};
use crate::keys::{Key, Need, Table, Type};
use crate::load::open;
use crate::machine::priced_machine;
use crate::model::import;
use crate::parallel::{PARALLEL, agrees, ranks, share_caps, shares};
use crate::pipeline::{later, stages};
use crate::placement::{self, Ground, Home, LOAD, MEMORY, caps, check_caps, kv_reserve};
use crate::pressure::{PRESSURE, Takeable, pressure};
use crate::price::Price;
use crate::reader::{Field, Keys, flag, format_names, text};
use crate::recipe::{RECIPES, recipe};
use crate::resident::{RESIDENT, resident};
use crate::scenario::{Kv, PolicyCheck, Scenario};
use crate::sensitivity::{Sensitivity, sensitivity};
use crate::served::{Length, Workload};
use crate::staging::{apart, staging};
use crate::tenants::{TENANT, tenants};
use crate::tree::{Node, Value};
use crate::units::whole;
use crate::workload::{WORKLOAD, workload};
use ::policy::{Machine, Model, TierId};
use std::collections::BTreeMap;

/// The keys of a scenario.
pub(crate) static SCENARIO: Table = Table {
    name: "scenario",
    about: "A scenario of Hotset: a machine, a model, what is served, and the policy that decides",
    open: false,
    keys: &[
        Key::required("name", Text, "what this scenario shows", "What it is called in reports"),
        Key::required("machine", File(catalogue::MACHINE), "h100-sxm", "The machine it runs on"),
        Key::required("model", File(catalogue::MODEL), "gpt-oss-20b", "The model that is served"),
        Key::optional(
            "recipe",
            Choice(RECIPES),
            "{ low_rank: { rank: 64 } }",
            "How blocks are made again where they are read; left out, each has a home copy",
        ),
        Key::optional("memory", Type::Rows(&MEMORY), "{ hbm: 6 GiB }", "Caps on the machine's tiers"),
        Key::optional(
            "resident",
            Map(&RESIDENT),
            "{ activations: 2 GiB, fragmentation: 3 % }",
            "Fast memory that is lost to blocks",
        ),
        Key::optional(
            "kv",
            placement::KV,
            "4 GiB",
            "Fast memory for key-value caches: set aside, or `{ paged: { most: 20 GiB } }`; left out, room for 4096 tokens a request",
        ),
        Key::optional(
            "pressure",
            List(&Map(&PRESSURE)),
            "[{ at: 10 s, take: 4 GiB }, { at: 40 s, take: 0 B }]",
            "What others take of memories and links during the run, and give back",
        ),
        Key::optional(
            "home",
            List(&Text),
            "[dram, nvme]",
            "The tier that holds every block from the start, or several that are filled in order; left out, the first below the fast one with room",
        ),
        Key::optional(
            "staging",
            List(&Text),
            "[peer]",
            "Tiers that hold copies of blocks whose home is elsewhere, as much as is worth it; the quickest first",
        ),
        Key::optional(
            "encoded",
            List(&Name(format_names)),
            "[int8, bf16_packed]",
            "Further formats in which its home tier holds every block",
        ),
        Key::optional(
            "recode",
            List(&Name(format_names)),
            "[int8]",
            "Formats that blocks may be coded into on their way, with no copy kept below: by the host, or on arrival",
        ),
        Key::default(
            "host_compute",
            Flag,
            "false",
            "Let the host compute blocks where they are, where a policy asks for it",
        ),
        Key::optional("load", Map(&LOAD), "{ from: nvme }", "A cold start; left out, weights are in place"),
        Key::optional(
            "checkpoints",
            Map(&CHECKPOINTS),
            "{ pools: { dram: { room: 32 GiB, format: int4 } } }",
            "Checkpoints of recurrent states, so that prompts which begin alike need not be computed twice",
        ),
        Key::optional(
            "parallel",
            Map(&PARALLEL),
            "{ tensor: 2, pipeline: 4 }",
            "How many accelerators work together; left out, one",
        ),
        Key::required("workload", Map(&WORKLOAD), "{ routing: { trace: my-trace.npz } }", "What is served"),
        Key::optional(
            "tenants",
            List(&Map(&TENANT)),
            "[{ name: images, model: flux.1-dev, workload: { routing: { dense: {} } } }]",
            "Further models on the machine, with requests of their own; one controller decides for all",
        ),
        Key::required("policy", Type::Policy, "predictive", "What decides which block lives where"),
        Key::optional("guard", Map(&GUARD), "{ drift_budget: 1 % }", "The bound on the change of output"),
        Key::default(
            "sensitivity",
            File(SENSITIVITY),
            "synthetic-swiglu",
            "What each format costs in output error",
        ),
        Key::optional("slo", Map(&SLO), "{ ttft: 2 s, tpot: 50 ms }", "Service objectives"),
        Key::optional(
            "schedule",
            Map(&SCHEDULE),
            "{ chunk: 1 MiB, spill_share: 10 % }",
            "How background moves share the links with demands",
        ),
        Key::default("seed", Whole(0, u64::MAX), "0", "The seed of everything drawn"),
    ],
};

/// Whether a name is one of the keys at the top of a scenario.
pub fn is_key(name: &str) -> bool {
    SCENARIO.key(name).is_some()
}

/// Reads a scenario's tree; `None` where anything was wrong.
pub(crate) fn check(report: &mut Report, root: &Node, check_policy: PolicyCheck<'_>) -> Option<Scenario> {
    let top = Field::root(root, "");
    let keys = top.keys(report, &SCENARIO)?;
    let name = keys.required(report, "name", text);
    let machine = keys.need(report, "machine").and_then(|field| read_machine(report, &field));
    let (machine, price) = machine.unzip();
    let model = keys.need(report, "model").and_then(|field| read_model(report, &field));
    let model = match keys.get("recipe") {
        Some(field) => recipe(report, &field, model),
        None => model,
    };
    let memory_field = keys.get("memory");
    let mut memory = match &memory_field {
        Some(field) => caps(report, field, machine.as_ref()),
        None => Some(BTreeMap::new()),
    };
    let ranks = ranks(report, &keys);
    if let (Some(caps), Some(machine), Some(ranks)) = (&mut memory, &machine, ranks) {
        share_caps(caps, machine, ranks);
    }
    let parallel = keys.get("parallel");
    if let (Some(field), Some(true)) = (&parallel, model.as_ref().map(|model| !model.phases.is_empty())) {
        let wrong =
            Wrong::new("a model with phases on accelerators that work together", "leave `parallel` out");
        field.key_error(report, wrong);
    }
    let (machine, model) = shares(report, parallel.as_ref(), ranks.unwrap_or_default(), (machine, model));
    let empty = Node { at: root.at, value: Value::Map(vec![]) };
    let or_empty = |name| keys.get(name).unwrap_or_else(|| Field::root(&empty, name));
    let (resident, model) = resident(report, &or_empty("resident"), model);
    let staging_field = keys.get("staging");
    let staging =
        staging_field.as_ref().map_or(Some(vec![]), |field| staging(report, field, machine.as_ref()));
    let staged = staging.as_deref().unwrap_or_default();
    let table = read_sensitivity(report, &keys);
    let workload = keys.need(report, "workload").and_then(|field| workload(report, &field, model.as_ref()));
    let takeable = Takeable {
        machine: machine.as_ref(),
        staging: staged,
        parallel: ranks.unwrap_or_default(),
        prefill: workload.as_ref().is_none_or(|load| load.prefill.is_some()),
    };
    let pressed = |field: Field<'_>| pressure(report, &field, takeable);
    let pressure = keys.get("pressure").map_or(Some(vec![]), pressed);
    let (tenants, model) = match keys.get("tenants") {
        Some(field) if parallel.is_some() => {
            let wrong =
                Wrong::new("several models on accelerators that work together", "leave `parallel` out");
            field.key_error(report, wrong);
            (None, model)
        }
        Some(field) => tenants(report, &field, model),
        None => (Some(vec![]), model),
    };
    let policy = keys.need(report, "policy").and_then(|field| policy(report, &field, check_policy));
    let guard = guard(report, &or_empty("guard"));
    let slo = keys.get("slo").map_or(Some(None), |field| slo(report, &field).map(Some));
    let schedule = schedule(report, &or_empty("schedule"));
    let host_compute = host_compute(report, &keys, machine.as_ref());
    let seed = keys.or_default(report, "seed", whole);
    let longest = |load: &Workload| load.prompt_tokens.map_or(0, Length::long);
    // Each attends to requests of its own.
    let attended = |batch: u32| batch.div_ceil(ranks.unwrap_or_default().expert);
    let load = workload.as_ref().map(|load| (attended(load.requests.batch), longest(load)));
    let (model, later_models) = stages(report, &keys, ranks.unwrap_or_default().pipeline, model);
    let kv = kv_reserve(report, keys.get("kv"), model.as_ref(), load);
    let kv = kv.filter(|kv| can_be_paged(report, &keys, *kv, workload.as_ref()));
    let agrees = agrees(report, &keys, ranks.unwrap_or_default(), kv);
    let kv = kv.filter(|_| agrees);
    let checkpoint_field = keys.get("checkpoints");
    let checkpoints =
        checkpoint_field.as_ref().map(|field| checkpoints(report, field, machine.as_ref(), model.as_ref()));
    let spec = checkpoints.as_ref().and_then(Option::as_ref);
    let cache = (keys.get("kv"), kv.as_ref());
    fits_cache(report, (cache.0.as_ref(), cache.1), (checkpoint_field.as_ref(), spec), model.as_ref());
    let at = memory_field.as_ref().unwrap_or(&top);
    // Without the caps there is more room: what does not fit then never does.
    let uncapped = BTreeMap::new();
    let placed = match (&machine, &model) {
        (Some(machine), Some(model)) => {
            let caps = memory.as_ref().unwrap_or(&uncapped);
            let pools = spec.map_or(&[][..], |spec| &spec.pools);
            let ground = Ground { machine, model, caps, pools, sensitivity: table.as_ref() };
            place(report, &keys, at, &ground)
        }
        _ => {
            placement::unplaced(report, &keys);
            None
        }
    };
    let (home, load_from) = placed?;
    if !apart(report, staging_field.as_ref(), (staged, &home.tiers), machine.as_ref()?) {
        return None;
    }
    let scenario = Scenario {
        name: name?,
        machine: machine?,
        price: price?,
        model: model?,
        parallel: ranks?,
        later: vec![],
        memory: memory?,
        kv: kv?,
        checkpoints: checkpoints.unwrap_or_default(),
        resident: resident?,
        pressure: pressure?,
        load: load_from,
        home: home.tiers,
        staging: staging?,
        encoded: home.encoded,
        recode: home.recode,
        host_compute: host_compute?,
        workload: workload?,
        tenants: tenants?,
        policy: policy?,
        guard: guard?,
        sensitivity: table?,
        slo: slo?,
        schedule: schedule?,
        seed: seed?,
    };
    check_caps(report, at, &scenario);
    if !report.is_clean() {
        return None;
    }
    later(report, (&keys, at), load?, scenario, later_models)
}

/// Reads `home`, `encoded`, `recode` and `load`.
pub(crate) fn place(
    report: &mut Report,
    keys: &Keys<'_>,
    at: &Field<'_>,
    ground: &Ground<'_>,
) -> Option<(Home, Option<TierId>)> {
    let home = placement::home(report, keys, at, ground)?;
    let load = match keys.get("load") {
        Some(field) => Some(placement::load(report, &field, &home, ground)?),
        None => None,
    };
    Some((home, load))
}

/// Caches in pages need prompts that are computed: a request that is pre-empted computes its own again.
fn can_be_paged(report: &mut Report, keys: &Keys<'_>, kv: Kv, workload: Option<&Workload>) -> bool {
    let stuck = matches!(kv, Kv::Paged(_)) && workload.is_some_and(|workload| workload.prefill.is_none());
    if let Some(field) = keys.get("kv").filter(|_| stuck) {
        let hint = "write `workload.prefill: { chunk: 512 }`: a request that is pre-empted computes its prompt again";
        field.error(report, Wrong::new("caches in pages, but prompts are not computed", hint));
    }
    !stuck
}

/// Reads `host_compute`: it takes a host that can, and memory for it to compute from.
fn host_compute(report: &mut Report, keys: &Keys<'_>, machine: Option<&Machine>) -> Option<bool> {
    let allowed = keys.or_default(report, "host_compute", flag)?;
    let (Some(machine), Some(field)) = (machine.filter(|_| allowed), keys.get("host_compute")) else {
        return Some(allowed);
    };
    let wrong = match machine.host_compute() {
        Some(host) if !host.tiers.is_empty() => return Some(true),
        Some(_) => {
            let message = format!("{} has no staged memory for its host to compute from", machine.name);
            Wrong::new(message, "leave it out: a memory with `compute` of its own computes without it")
        }
        None => {
            let message = format!("{} does not say how its host computes", machine.name);
            let hint =
                "give the machine `host: { compute: { flops: 2 TFLOP/s, read: 110 GB/s, launch: 20 us } }`";
            Wrong::new(message, hint)
        }
    };
    field.error(report, wrong);
    None
}

/// Paths start anew in another file.
fn rooted<'t>(field: &Field<'t>) -> Field<'t> {
    let other = field.node.at.source != field.key_at.source;
    match other && matches!(field.node.value, Value::Map(_)) {
        true => Field::root(field.node, ""),
        false => field.clone(),
    }
}

fn read_machine(report: &mut Report, field: &Field<'_>) -> Option<(Machine, Option<Price>)> {
    resolved(field)?;
    priced_machine(report, &rooted(field))
}

fn read_model(report: &mut Report, field: &Field<'_>) -> Option<Model> {
    resolved(field)?;
    // A model on a base is called as the base is.
    let kind = field.node.entries().iter().find(|entry| entry.key == "model_type");
    let at = kind.map_or(field.node.at, |entry| entry.value.at);
    let name = report.source(at.source).stem();
    import(report, &rooted(field), &name).map(|imported| imported.model)
}

fn read_sensitivity(report: &mut Report, keys: &Keys<'_>) -> Option<Sensitivity> {
    if let Some(field) = keys.get(SENSITIVITY.key) {
        resolved(&field)?;
        return sensitivity(report, &rooted(&field));
    }
    let Some(Need::Default(name)) = SCENARIO.key(SENSITIVITY.key).map(|key| key.need) else { return None };
    let node = open(report, SENSITIVITY, name, None)?;
    sensitivity(report, &Field::root(&node, ""))
}

/// A name that is still a name could not be resolved, which was reported.
fn resolved(field: &Field<'_>) -> Option<()> {
    (!matches!(field.node.value, Value::Scalar(_))).then_some(())
}
