//! From a scenario to a case: traces opened or generated, budgets counted, tables turned.

use crate::conversations;
use crate::simulate::{Case, Load, RunFailure};
use crate::stages::StageShare;
use crate::tenants::TenantLoad;
use crate::workload::{Arrivals, Plan};
use policy::checkpoints::Place;
use policy::guard::{ErrorBound, GuardSpec, Sensitivity};
use policy::parallel::ExpertShare;
use policy::pipeline::Stage;
use policy::policies::script::{Script, ScriptError};
use policy::registry::{Entry, ParamError, UnknownPolicy, lookup};
use policy::schedule::Pace;
use policy::serving::cache::CacheSpec;
use policy::{Bytes, TierId};
use scenarios::{
    Dense, Diagnostics, Kv, Length, Paged, Parallel, PolicyChoice, PolicyComplaint, Recording, Requests,
    Routing, Scenario, ScriptFile, ZipfMarkov,
};
use std::collections::btree_map::{self, BTreeMap};
use std::path::PathBuf;
use std::sync::Arc;
use thiserror::Error;
use traces::generate::{Params, generate};
use traces::requests::{Cut, RequestFormat, RequestTrace, open_requests};
use traces::{Fitted, RoutingTrace, TraceError};

/// Draws of the routing that fitted policies may learn from, where the scenario generates its own: the same
/// popularity, other draws.
const FIT_DRAWS: u32 = 1;

impl Case {
    /// The case that a scenario describes.
    ///
    /// # Errors
    /// A trace cannot be read, or does not belong to the model.
    pub fn from_scenario(scenario: &Scenario) -> Result<Case, RunFailure> {
        Library::default().case(scenario)
    }
}

/// Routing and requests that were opened or generated, kept so that cases that serve the same share it.
#[derive(Default)]
pub struct Library {
    opened: BTreeMap<(Vec<PathBuf>, Option<u32>), Arc<RoutingTrace>>,
    /// By its parameters, written out: some of them are no keys.
    generated: BTreeMap<String, Arc<RoutingTrace>>,
    /// By what they are fitted on, written out.
    routers: BTreeMap<String, Fitted>,
    /// By what is taken of them, written out.
    recorded: BTreeMap<String, Arc<RequestTrace>>,
}

impl Library {
    /// The case that a scenario describes.
    ///
    /// # Errors
    /// A trace cannot be read, or does not belong to the model.
    pub fn case(&mut self, scenario: &Scenario) -> Result<Case, RunFailure> {
        let workload = &scenario.workload;
        let load = match &workload.routing {
            Routing::Trace(paths) => Load::Routed(self.open(paths, scenario)?),
            Routing::ZipfMarkov(zipf) => Load::Routed(self.generate(scenario, zipf, 0)?),
            Routing::Fitted(fitted) => Load::Routed(self.fitted(scenario, fitted)?),
            &Routing::Dense(Dense { requests, tokens }) => Load::Dense { requests, tokens },
        };
        let fit = match (&workload.routing, workload.fit.as_slice()) {
            (Routing::ZipfMarkov(zipf), []) => Some(self.generate(scenario, zipf, FIT_DRAWS)?),
            (Routing::Fitted(fitted), []) => Some(self.open(&fitted.traces, scenario)?),
            (_, []) => None,
            (_, paths) => Some(self.open(paths, scenario)?),
        };
        let limit = workload.requests.limit;
        let arrivals = self.arrivals(workload, scenario.seed)?;
        let tenants = scenario.tenants.iter().map(|tenant| self.tenant(tenant, scenario.seed));
        let tenants = tenants.collect::<Result<Vec<_>, RunFailure>>()?;
        // Each model has a batch of its own, of at most so many; prompts of all are computed in chunks alike.
        let loads = || scenario.tenants.iter().map(|tenant| &tenant.workload).chain([workload]);
        let batch = loads().map(|load| load.requests.batch).max().unwrap_or(1);
        let prefill_chunk = loads().filter_map(|load| load.prefill).map(|prefill| prefill.chunk).max();
        let cache = cache(scenario.kv, &arrivals)?;
        let place = scenario.checkpoints.as_ref().map(|spec| spec.place);
        if let (Some(Place::Every(every)), Some(block)) = (place, cache.and_then(|spec| spec.prefix_block))
            && every % block != 0
        {
            return Err(RunFailure::CheckpointPlace { every, block });
        }
        let script = scenario.policy.script.as_ref().map(read_script).transpose()?;
        let errors = scenario.sensitivity.formats.iter();
        let sensitivity = Sensitivity::new(
            errors.map(|(&format, row)| (format, ErrorBound { mean: row.error, upper: row.upper })),
        );
        let case = Case {
            budgets: budgets(scenario),
            reserved: scenario.resident_floor(),
            model: Arc::new(scenario.model.clone()),
            machine: Arc::new(scenario.machine.clone()),
            pressure: scenario.pressure.clone(),
            home: scenario.home.clone(),
            staging: scenario.staging.clone(),
            encoded: scenario.encoded.clone(),
            recode: scenario.recode.clone(),
            host_compute: scenario.host_compute,
            lookahead: workload.lookahead.clone(),
            guard: GuardSpec {
                drift_budget: scenario.guard.drift_budget,
                floors: scenario.guard.floors.clone(),
                sensitivity,
            },
            share: share(scenario),
            stage: Stage { index: 0, of: scenario.parallel.pipeline },
            routers_before: 0,
            later: (1..=scenario.later.len()).map(|index| later(&scenario.at_stage(index))).collect(),
            micro_batches: scenario.parallel.micro_batches,
            caches: scenario.kv_reserve(),
            load,
            include_repetition: workload.include_repetition,
            order: workload.order.unwrap_or_default(),
            fit,
            script: script.map(Arc::new),
            arrivals,
            tenants,
            cache,
            checkpoints: scenario.checkpoints.clone(),
            max_batch: batch as usize,
            prompt_tokens: workload.prompt_tokens.unwrap_or(Length::Fixed(0)),
            output_tokens: workload.output_tokens,
            limit_requests: limit,
            prefill_chunk,
            load_from: scenario.load,
            pace: Pace {
                chunk: scenario.schedule.chunk,
                background_share: scenario.schedule.background_share,
                spill_share: scenario.schedule.spill_share,
            },
            limit_tokens: workload.limit_tokens,
            slo: scenario.slo,
            seed: scenario.seed,
        };
        case.check()?;
        Ok(case)
    }

    /// When the requests of a load come in.
    fn arrivals(&mut self, load: &scenarios::Workload, seed: u64) -> Result<Arrivals, RunFailure> {
        let Requests { batch, limit, ref arrivals } = load.requests;
        Ok(match arrivals {
            &scenarios::Arrivals::Closed { think } => Arrivals::Closed { clients: batch, think },
            &scenarios::Arrivals::Drawn(process) => Arrivals::Drawn(process),
            scenarios::Arrivals::Conversations(spec) => {
                Arrivals::Recorded(Arc::new(conversations::generate(spec, limit, seed)))
            }
            scenarios::Arrivals::Recorded(recording) => Arrivals::Recorded(self.recorded(recording, limit)?),
        })
    }

    /// What is asked of a further model.
    fn tenant(&mut self, tenant: &scenarios::Tenant, seed: u64) -> Result<TenantLoad, RunFailure> {
        let load = &tenant.workload;
        let (requests, tokens) = match load.routing {
            Routing::Dense(Dense { requests, tokens }) => (requests, tokens),
            _ => (0, 0),
        };
        let plan = Plan {
            arrivals: self.arrivals(load, seed)?,
            prompt: load.prompt_tokens.unwrap_or(Length::Fixed(0)),
            output: load.output_tokens,
            limit: load.requests.limit,
            limit_tokens: load.limit_tokens,
        };
        Ok(TenantLoad { name: tenant.name.clone(), requests, tokens, plan })
    }

    /// A scenario with a case for each of `seeds` seeds, counted from its own. Where there are several, recorded requests
    /// come in an order drawn from the seed unless the scenario says otherwise: in one order, all seeds would be the same run.
    ///
    /// # Errors
    /// See [`SeedsError`].
    pub fn seeds(
        &mut self,
        name: &str,
        set: &[(String, String)],
        seeds: u64,
    ) -> Result<(Scenario, Vec<Case>), SeedsError> {
        let load = |set: &[(String, String)]| scenarios::load(name, set, &check_policy);
        let scenario = load(set)?;
        let mut set = set.to_vec();
        let recorded = matches!(scenario.workload.routing, Routing::Trace(_));
        if seeds > 1 && recorded && scenario.workload.order.is_none() {
            set.push(("workload.order".to_owned(), "shuffled".to_owned()));
        }
        let first = scenario.seed;
        let last = first.checked_add(seeds.saturating_sub(1)).ok_or(SeedsError::Room { first, seeds })?;
        let mut cases = Vec::new();
        for seed in first..=last {
            let seeded = [&set[..], &[("seed".to_owned(), seed.to_string())]].concat();
            cases.push(self.case(&load(&seeded)?)?);
        }
        Ok((scenario, cases))
    }

    fn open(&mut self, paths: &[PathBuf], scenario: &Scenario) -> Result<Arc<RoutingTrace>, TraceError> {
        let shares = cut(scenario);
        let experts = scenario.models().find_map(|model| model.uniform_blocks());
        let experts = experts.map(|experts| experts.saturating_mul(shares));
        let key = (paths.to_vec(), experts);
        if let Some(opened) = self.opened.get(&key) {
            return Ok(opened.clone());
        }
        let options = traces::Options { experts, ..traces::Options::default() };
        let parts = paths.iter().map(|path| traces::open_with(path, &options)).collect::<Result<_, _>>()?;
        let opened = Arc::new(RoutingTrace::concat(parts)?);
        self.opened.insert(key, opened.clone());
        Ok(opened)
    }

    fn recorded(
        &mut self,
        recording: &Recording,
        limit: Option<u32>,
    ) -> Result<Arc<RequestTrace>, TraceError> {
        let key = format!("{recording:?} {limit:?}");
        if let Some(opened) = self.recorded.get(&key) {
            return Ok(opened.clone());
        }
        let &Recording { rate_scale, from, until, .. } = recording;
        let cut = Cut { from, until, limit, rate_scale };
        let opened = Arc::new(open_requests(&recording.path, format_of(recording.format), &cut)?);
        self.recorded.insert(key, opened.clone());
        Ok(opened)
    }

    fn fitted(
        &mut self,
        scenario: &Scenario,
        fitted: &scenarios::Fitted,
    ) -> Result<Arc<RoutingTrace>, RunFailure> {
        let failed = |error| RunFailure::Generated { routing: "fitted", error };
        let recorded = self.open(&fitted.traces, scenario)?;
        let repetition = scenario.workload.include_repetition;
        let source = format!("{:?} {:?} {repetition}", fitted.traces, recorded.shape());
        let key = format!("{source} {} {}", fitted.tokens, scenario.seed);
        if let Some(generated) = self.generated.get(&key) {
            return Ok(generated.clone());
        }
        // The fit takes seconds, and does not depend on the seed.
        let router = match self.routers.entry(source) {
            btree_map::Entry::Occupied(fitted) => fitted.into_mut(),
            btree_map::Entry::Vacant(place) => {
                place.insert(Fitted::new(&recorded, repetition).map_err(failed)?)
            }
        };
        let lengths = lengths_of(router.lengths(), fitted.tokens as usize);
        let generated = Arc::new(router.generate(&lengths, true, scenario.seed).map_err(failed)?);
        self.generated.insert(key, generated.clone());
        Ok(generated)
    }

    fn generate(
        &mut self,
        scenario: &Scenario,
        zipf: &ZipfMarkov,
        draws: u32,
    ) -> Result<Arc<RoutingTrace>, RunFailure> {
        let params = generation(scenario, zipf, draws);
        let key = format!("{params:?}");
        if let Some(generated) = self.generated.get(&key) {
            return Ok(generated.clone());
        }
        let generated = Arc::new(
            generate(&params).map_err(|error| RunFailure::Generated { routing: "zipf_markov", error })?,
        );
        self.generated.insert(key, generated.clone());
        Ok(generated)
    }
}

/// Why a scenario has no cases for the seeds asked for.
#[derive(Debug, Error)]
pub enum SeedsError {
    /// It is refused.
    #[error(transparent)]
    Scenario(#[from] Diagnostics),
    /// Its routing or its requests are.
    #[error(transparent)]
    Case(#[from] RunFailure),
    /// Its own seed is too large.
    #[error("seed {first} leaves no room for {seeds} seeds: at most {}", u64::MAX - (.seeds - 1))]
    Room {
        /// The scenario's seed.
        first: u64,
        /// How many there were to be.
        seeds: u64,
    },
}

/// The lengths of so many recorded traces in turn as have so many tokens.
fn lengths_of(recorded: &[usize], tokens: usize) -> Vec<usize> {
    let mut left = tokens;
    let lengths = recorded.iter().cycle().map_while(|&length| {
        let length = length.min(left);
        left -= length;
        (length > 0).then_some(length)
    });
    lengths.collect()
}

/// The first one's share of the experts.
fn share(scenario: &Scenario) -> ExpertShare {
    let Parallel { expert: of, replicas, losable, .. } = scenario.parallel;
    ExpertShare { rank: 0, of, replicas, losable }
}

/// Into how many parts the experts of a layer are cut in the scenario's model.
fn cut(scenario: &Scenario) -> u32 {
    share(scenario).cut()
}

/// Bytes of each tier that managed blocks may take.
fn budgets(scenario: &Scenario) -> Vec<Bytes> {
    let (fast, floor) = (scenario.fast(), scenario.resident_floor());
    let of = |tier| {
        let reserved = if tier == fast { floor } else { scenario.checkpoint_room(tier) };
        scenario.capacity(tier).saturating_sub(reserved)
    };
    (0..scenario.machine.tiers.len() as u8).map(TierId).map(of).collect()
}

/// What a later stage of a pipeline has of its own, from the scenario as that stage has it.
fn later(scenario: &Scenario) -> StageShare {
    StageShare {
        model: Arc::new(scenario.model.clone()),
        budgets: budgets(scenario),
        reserved: scenario.resident_floor(),
        home: scenario.home.clone(),
    }
}

fn format_of(format: scenarios::RequestFormat) -> RequestFormat {
    match format {
        scenarios::RequestFormat::AzureCsv => RequestFormat::AzureCsv,
        scenarios::RequestFormat::MooncakeJsonl => RequestFormat::MooncakeJsonl,
        scenarios::RequestFormat::BurstgptCsv => RequestFormat::BurstgptCsv,
        scenarios::RequestFormat::SharegptCsv => RequestFormat::SharegptCsv,
        scenarios::RequestFormat::VllmJson => RequestFormat::VllmJson,
        scenarios::RequestFormat::Csv => RequestFormat::Csv,
    }
}

fn generation(scenario: &Scenario, zipf: &ZipfMarkov, draws: u32) -> Params {
    let routed = || scenario.models().flat_map(|model| model.routed_layers());
    let layer = routed().next();
    Params {
        layers: routed().count() as u32,
        experts: layer.map_or(0, |layer| layer.blocks.saturating_mul(cut(scenario))),
        top_k: layer.map_or(0, |layer| layer.selected),
        traces: zipf.traces,
        tokens_per_trace: zipf.tokens / zipf.traces.max(1),
        skew: zipf.skew,
        stickiness: zipf.stickiness,
        coupling: zipf.coupling,
        kinds: zipf.kinds,
        specialisation: zipf.specialisation,
        favourites: zipf.favourites,
        gates: true,
        seed: scenario.seed,
        draws,
    }
}

/// The layout of a cache in pages.
fn cache(kv: Kv, arrivals: &Arrivals) -> Result<Option<CacheSpec>, RunFailure> {
    let Kv::Paged(Paged { page, most, prefixes, keep }) = kv else { return Ok(None) };
    let blocks = match arrivals {
        Arrivals::Recorded(trace) => trace.block_tokens(),
        _ => None,
    };
    let prefix_block = match blocks.filter(|_| prefixes).map(u32::from) {
        None if prefixes => return Err(RunFailure::NoPrefixes),
        Some(block) if block % page != 0 => return Err(RunFailure::Pages { page, block }),
        block => block,
    };
    Ok(Some(CacheSpec { page, most, prefix_block, keep }))
}

/// The registry's word on a policy, its parameters and its script, in the form the scenario language asks for.
///
/// # Errors
/// What is wrong, and what would be right.
pub fn check_policy(choice: &PolicyChoice) -> Result<(), PolicyComplaint> {
    let (entry, _) = resolve_policy(&choice.name, &choice.params)?;
    let complaint =
        |message: String, hint: &str| PolicyComplaint { key: None, message, hint: Some(hint.to_owned()) };
    match &choice.script {
        None if entry.scripted => {
            let message = format!("`{}` runs a script, and none is named", entry.name);
            Err(complaint(message, "write `policy: { script: my.rhai }`"))
        }
        Some(_) if !entry.scripted => {
            let message = format!("`{}` runs no script", entry.name);
            Err(complaint(
                message,
                "its parameters, such as `{ name: { parameter: 1 } }`, or `{ script: my.rhai }`",
            ))
        }
        Some(script) => match read_script(script) {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(complaint(error.to_string(), "see `hotset policies --script` for what a script defines"))
            }
        },
        None => Ok(()),
    }
}

fn read_script(file: &ScriptFile) -> Result<Script, ScriptError> {
    Script::read(&file.path.display().to_string(), &file.text)
}

/// The entry and the parameter values of a policy.
///
/// # Errors
/// The name is not in the registry or serves replay only, or a parameter is unknown or out of range.
pub fn resolve_policy(
    name: &str,
    params: &BTreeMap<String, f64>,
) -> Result<(&'static Entry, Vec<f64>), PolicyComplaint> {
    let entry = lookup(name).map_err(|error: UnknownPolicy| PolicyComplaint {
        key: None,
        message: error.to_string(),
        hint: error.meant.map(|meant| format!("did you mean `{meant}`?")),
    })?;
    if entry.simulate.is_none() {
        let message = format!("`{name}` can only be replayed, not simulated");
        return Err(PolicyComplaint { key: None, message, hint: None });
    }
    let values = entry.resolve(params).map_err(|error| {
        let key = match &error {
            ParamError::Unknown { name, .. } => name.clone(),
            ParamError::Range { name, .. } => (*name).to_owned(),
        };
        PolicyComplaint { key: Some(key), message: error.to_string(), hint: None }
    })?;
    Ok((entry, values))
}
