//! Small models on a small machine, as scenarios; and a witness that stands between a controller and its world, and
//! objects to whatever neither may do.

use policy::drive::RunError;
use policy::event::{Command, Event, EventKind, Form, MoveChunk, MoveClass, Part, Platform, Read, Routed};
use policy::machine::Class;
use policy::policies::script::Script;
use policy::record::Decision;
use policy::registry::{self, Entry};
use policy::tally::RequestTimes;
use policy::{BlockId, Bytes, FormatId, Machine, MoveId, Orchestrator, ProcessorId, TierId, Watch};
use sim::{Case, Keep, Outcome};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A case by its numbers.
#[derive(Clone, Debug)]
pub(crate) struct Small {
    /// `mixtral` in bf16, or `gpt_oss` in mxfp4.
    pub(crate) family: &'static str,
    pub(crate) hidden: u32,
    pub(crate) width: u32,
    pub(crate) layers: u32,
    pub(crate) experts: u32,
    pub(crate) selected: u32,
    pub(crate) slots: u32,
    pub(crate) encoded: &'static [&'static str],
    pub(crate) recode: &'static [&'static str],
    /// The rank of the blocks' recipes; 0 for blocks with home copies.
    pub(crate) rank: u32,
    /// Percent.
    pub(crate) drift_budget: f64,
    /// Whether the host may compute.
    pub(crate) host: bool,
    /// Percent, for one layer ahead, two, ...
    pub(crate) lookahead: &'static [u32],
    pub(crate) tokens: u32,
    pub(crate) traces: u32,
    pub(crate) skew: f64,
    pub(crate) stickiness: f64,
    pub(crate) requests: String,
    /// GB/s towards the fast tier.
    pub(crate) link: f64,
    pub(crate) engines: u32,
    pub(crate) granularity: u32,
    pub(crate) chunk: u64,
    /// Slots of a peer's memory that holds staged copies; none without one. Its link is `nvlink` times as quick as the host's.
    pub(crate) peer: u32,
    pub(crate) nvlink: f64,
    /// GB/s at which the processor of a memory of its own reads, where every second block lies; no such memory without.
    pub(crate) near: f64,
    pub(crate) seed: u64,
}

impl Default for Small {
    fn default() -> Small {
        Small {
            family: "mixtral",
            hidden: 64,
            width: 128,
            layers: 4,
            experts: 8,
            selected: 2,
            slots: 10,
            encoded: &[],
            recode: &[],
            rank: 0,
            drift_budget: 0.0,
            host: false,
            lookahead: &[],
            tokens: 60,
            traces: 3,
            skew: 0.8,
            stickiness: 0.3,
            requests: "{ closed: { batch: 1 } }".to_owned(),
            link: 2.0,
            engines: 1,
            granularity: 512,
            chunk: 16 << 10,
            peer: 0,
            nvlink: 4.0,
            near: 0.0,
            seed: 7,
        }
    }
}

impl Small {
    /// The case. The machine's fast tier is no larger than what blocks may take of it, so that the world itself
    /// objects to a byte too many.
    pub(crate) fn case(&self) -> Case {
        let text = self.yaml();
        let scenario = scenarios::load_text("small.yaml", &text, &[], &sim::resolve::check_policy);
        let scenario = scenario.unwrap_or_else(|wrong| panic!("{}\n{text}", wrong.render(false)));
        let mut case = Case::from_scenario(&scenario).unwrap();
        let mut machine = Machine::clone(&case.machine);
        let fast = fast(&machine);
        machine.tiers[fast.index()].capacity = case.budgets[fast.index()];
        case.machine = machine.into();
        case.pace.chunk = Bytes(self.chunk);
        let script = Script::read("next-use.rhai", include_str!("../scenarios/scripts/next-use.rhai"));
        case.script = Some(Arc::new(script.unwrap()));
        case
    }

    /// The tier with a processor of its own, its link, the cap of the tier that homes fill first, and the key that names both.
    fn near(&self) -> [String; 4] {
        let (read, link, half) = (self.near, self.link, (self.layers * self.experts).div_ceil(2));
        if read == 0.0 {
            return Default::default();
        }
        let tier = format!(
            "    cxl: {{ class: staged, backing: numa, capacity: 256 MiB, granularity: 64 B, read: 60 GB/s, write: 60 GB/s,\n      \
             compute: {{ flops: 200 GFLOP/s, read: {read} GB/s, launch: 2 us }} }}\n"
        );
        let link = format!(
            "    cxl: {{ between: [cxl, hbm], forward: {link} GB/s, backward: {link} GB/s, latency: 300 ns, submit: 200 ns,\n      \
             engines: 1, duplex: {{ forward: {link} GB/s, backward: {link} GB/s }} }}\n"
        );
        [tier, link, format!(", dram: {half} slots"), "home: [dram, cxl]\n".to_owned()]
    }

    /// The peer's tier, its link, its cap, and the key that names it.
    fn beside(&self) -> [String; 4] {
        let (slots, rate) = (self.peer, self.link * self.nvlink);
        if slots == 0 {
            return self.near();
        }
        let tier = "    peer: { class: staged, backing: device, device: 1, transient: true, capacity: 256 MiB, read: 90 GB/s, write: 90 GB/s }\n";
        let link = format!(
            "    nvlink: {{ between: [peer, hbm], forward: {rate} GB/s, backward: {rate} GB/s, latency: 2 us, submit: 500 ns,\n      \
             engines: 1, duplex: {{ forward: {rate} GB/s, backward: {rate} GB/s }} }}\n"
        );
        [tier.to_owned(), link, format!(", peer: {slots} slots"), "home: dram\nstaging: [peer]\n".to_owned()]
    }

    fn yaml(&self) -> String {
        let Small { family, hidden, width, layers, experts, selected, slots, drift_budget, .. } = self;
        let Small { tokens, traces, skew, stickiness, requests, link, engines, granularity, seed, .. } = self;
        let mxfp4 = if *family == "gpt_oss" { ", quantization_config: { quant_method: mxfp4 }" } else { "" };
        let (encoded, recode) = (self.encoded.join(", "), self.recode.join(", "));
        let (host, slow) = (self.host, link / 2.0);
        let made_of = match self.rank {
            0 => format!("encoded: [{encoded}]"),
            rank => format!("recipe: {{ low_rank: {{ rank: {rank} }} }}"),
        };
        let lookahead: Vec<String> = self.lookahead.iter().map(|share| format!("{share} %")).collect();
        let lookahead = lookahead.join(", ");
        let [tier, nvlink, room, staging] = self.beside();
        format!(
            "name: small
machine:
  name: desk
  tiers:
    hbm: {{ class: fast, backing: device, capacity: 1 GiB, granularity: {granularity} B, read: 100 GB/s, write: 100 GB/s }}
    dram: {{ class: staged, backing: pinned, capacity: 256 MiB, granularity: 64 B, read: 20 GB/s, write: 20 GB/s }}
    disk: {{ class: cold, backing: file, capacity: 1 MiB, granularity: 4 KiB, read: 1 GB/s, write: 1 GB/s }}
{tier}  links:
    pcie: {{ between: [dram, hbm], forward: {link} GB/s, backward: {link} GB/s, latency: 1.5 us, submit: 700 ns,
      half_size: 1000 B, engines: {engines}, duplex: {{ forward: {slow} GB/s, backward: {slow} GB/s }} }}
    nvme: {{ between: [disk, dram], forward: 1 GB/s, backward: 1 GB/s, latency: 80 us, submit: 0 ns,
      half_size: 0 B, engines: 1, duplex: {{ forward: 1 GB/s, backward: 1 GB/s }} }}
{nvlink}  accelerator: {{ flops: 1 TFLOP/s, read: 50 GB/s, launch: 2 us }}
  codecs:
    bf16_packed: {{ encode: 6 GB/s, decode: 5 GB/s }}
    int8: {{ encode: 30 GB/s, decode: 30 GB/s }}
  host:
    codecs: {{ int8: {{ encode: 8 GB/s, decode: 8 GB/s }} }}
    compute: {{ flops: 50 GFLOP/s, read: 4 GB/s, launch: 3 us }}
model: {{ model_type: {family}, hidden_size: {hidden}, intermediate_size: {width}, num_hidden_layers: {layers},
  num_local_experts: {experts}, num_experts_per_tok: {selected}, num_attention_heads: 2, num_key_value_heads: 1,
  head_dim: 16, vocab_size: 512, torch_dtype: bfloat16{mxfp4} }}
memory: {{ hbm: {slots} slots{room} }}
{staging}kv: 1 KiB
{made_of}
recode: [{recode}]
host_compute: {host}
workload:
  routing: {{ zipf_markov: {{ tokens: {tokens}, traces: {traces}, skew: {skew}, stickiness: {stickiness}, coupling: 0.2 }} }}
  requests: {requests}
  lookahead: [{lookahead}]
policy: lru
guard: {{ drift_budget: {drift_budget} % }}
seed: {seed}
"
        )
    }
}

/// The tier that compute reads.
pub(crate) fn fast(machine: &Machine) -> TierId {
    machine.tiers_of(Class::Fast).next().unwrap()
}

/// The policies that the controller can run on this case.
pub(crate) fn policies(closed: bool) -> impl Iterator<Item = &'static Entry> {
    let all = policy::registry::registry().iter();
    all.filter(move |entry| entry.simulate.is_some() && (closed || !entry.clairvoyant))
}

/// A finished run, and what was seen of it from outside.
pub(crate) struct Seen<P> {
    pub(crate) decisions: Vec<Decision>,
    pub(crate) requests: Vec<RequestTimes>,
    pub(crate) orchestrator: Orchestrator,
    pub(crate) witness: Witness<P>,
}

/// Runs a policy on a world, with a witness between them.
pub(crate) fn run<P: Platform>(case: &Case, entry: &Entry, world: P) -> Result<Seen<P>, RunError<P::Error>> {
    let params = entry.resolve(&BTreeMap::new()).unwrap();
    watch(case, case.orchestrator(entry, &params, true).unwrap(), world)
}

/// Runs a controller on a world, with a witness between them.
pub(crate) fn watch<P: Platform>(
    case: &Case,
    mut orchestrator: Orchestrator,
    world: P,
) -> Result<Seen<P>, RunError<P::Error>> {
    let mut witness = Witness::new(world, case);
    let mut log = Log::default();
    policy::watch(&mut orchestrator, &mut witness, &mut log)?;
    let Log { decisions, requests } = log;
    Ok(Seen { decisions, requests, orchestrator, witness })
}

/// What a run tells as it goes.
#[derive(Default)]
struct Log {
    decisions: Vec<Decision>,
    requests: Vec<RequestTimes>,
}

impl<P> Watch<P> for Log {
    fn decision(&mut self, decision: Decision) {
        self.decisions.push(decision);
    }

    fn request(&mut self, request: RequestTimes) {
        self.requests.push(request);
    }
}

/// Runs a policy with its defaults, and answers with the requests in order of their numbers.
pub(crate) fn serve(case: &Case, policy: &str) -> (Outcome, Vec<RequestTimes>) {
    let entry = registry::lookup(policy).unwrap();
    let params = entry.resolve(&BTreeMap::new()).unwrap();
    let mut log = Log::default();
    let outcome = case.watch(entry, &params, Keep::default(), &mut log).unwrap();
    log.requests.sort_by_key(|one| one.request);
    (outcome, log.requests)
}

/// A move as its commands tell it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) first: MoveChunk,
    /// Bytes handed over.
    pub(crate) sent: Bytes,
    outstanding: u32,
    whole: bool,
    pub(crate) complete: bool,
    pub(crate) cancelled: bool,
}

/// See the module. It knows commands and events only, and panics at one that breaks the contract.
pub(crate) struct Witness<P> {
    pub(crate) world: P,
    fast: TierId,
    homes: BTreeSet<(BlockId, Form)>,
    /// The native format of each block.
    native: Vec<FormatId>,
    /// The complete copies.
    pub(crate) copies: BTreeSet<(BlockId, Form)>,
    pub(crate) moves: BTreeMap<MoveId, Told>,
    /// Copies that the running step needed, but could not read, dropped to make room.
    pub(crate) gave_way: u64,
    pub(crate) demanded: u64,
    /// What each layer step demanded, in order.
    pub(crate) asked: Vec<Vec<BlockId>>,
    pub(crate) hits: u64,
    /// Blocks of the running demand that have not been computed.
    pub(crate) needed: BTreeSet<BlockId>,
    /// Demanded blocks that nobody computed.
    pub(crate) left_out: u64,
    machine: Arc<Machine>,
    /// What the accelerator and processors beside other memories are computing.
    computing: BTreeMap<Option<ProcessorId>, VecDeque<Vec<Read>>>,
}

impl<P> Witness<P> {
    fn new(world: P, case: &Case) -> Witness<P> {
        Witness {
            world,
            fast: fast(&case.machine),
            native: case.model.blocks.iter().map(|block| block.native).collect(),
            homes: case.home_copies().into_iter().collect(),
            copies: case.home_copies().into_iter().collect(),
            moves: BTreeMap::new(),
            gave_way: 0,
            demanded: 0,
            asked: Vec::new(),
            hits: 0,
            needed: BTreeSet::new(),
            left_out: 0,
            machine: case.machine.clone(),
            computing: BTreeMap::new(),
        }
    }

    /// Bytes handed over from tier to tier.
    pub(crate) fn moved(&self) -> BTreeMap<(TierId, TierId), Bytes> {
        let mut moved = BTreeMap::new();
        for told in self.moves.values() {
            *moved.entry((told.first.from.tier(told.first.to), told.first.to.tier)).or_default() += told.sent;
        }
        moved
    }

    fn under_way(&self) -> impl Iterator<Item = &Told> {
        self.moves.values().filter(|told| !told.complete && !told.cancelled)
    }

    fn hear_move(&mut self, chunk: &MoveChunk) {
        // A recipe goes through the accelerator's workshop; a change of format within a tier takes nothing that is shared.
        let lane_of = |chunk: &MoveChunk| (chunk.from.copy().map(|from| from.tier), chunk.to.tier);
        let lane = lane_of(chunk);
        let same_link = |told: &&Told| lane_of(&told.first) == lane;
        let background = |told: &&Told| told.first.class != MoveClass::Demand;
        if lane.0 != Some(lane.1) {
            let waits_for: u32 =
                self.under_way().filter(same_link).filter(background).map(|told| told.outstanding).sum();
            assert!(waits_for <= 1, "{chunk:?} waits for {waits_for} chunks of background moves");
            if chunk.class != MoveClass::Demand {
                let busy = self.under_way().filter(same_link).any(|told| told.outstanding > 0);
                assert!(!busy, "a background chunk on a busy link: {chunk:?}");
            }
        }
        let there = chunk.from.copy().is_none_or(|from| self.copies.contains(&(chunk.block, from)));
        assert!(there, "moved from nowhere: {chunk:?}");
        let new = Told {
            first: *chunk,
            sent: Bytes::ZERO,
            outstanding: 0,
            whole: false,
            complete: false,
            cancelled: false,
        };
        let told = self.moves.entry(chunk.id).or_insert(new);
        assert!(!told.whole && !told.cancelled && told.sent == chunk.offset, "{chunk:?} after {told:?}");
        told.sent += chunk.len;
        told.outstanding += 1;
        told.whole = chunk.last;
        told.first.class = chunk.class;
    }

    fn hear(&mut self, command: &Command) {
        match command {
            Command::Move(chunk) => self.hear_move(chunk),
            Command::Drop { block, form } => {
                let copy = (*block, *form);
                assert!(self.copies.remove(&copy), "dropped, but not there: {copy:?}");
                assert!(!self.homes.contains(&copy), "a home copy is dropped");
                let whole = form.format == self.native[block.index()];
                let in_place =
                    self.computing.iter().filter(|(by, _)| by.is_some()).flat_map(|(_, told)| told);
                let in_place = in_place.flatten().any(|read| read.block == *block);
                let needed = form.tier == self.fast && self.needed.contains(block) && !in_place;
                assert!(!(whole && needed), "dropped while the step needs it: {copy:?}");
                self.gave_way += u64::from(needed);
                let read = self
                    .under_way()
                    .any(|told| (told.first.block, told.first.from) == (copy.0, copy.1.into()));
                assert!(!read, "dropped while a move reads it: {copy:?}");
            }
            Command::Cancel { id } => {
                let told = self.moves.get_mut(id).unwrap();
                assert_eq!(told.outstanding, 0, "cancelled with a chunk on the link: {told:?}");
                assert!(!told.complete && !told.cancelled, "cancelled, but over: {told:?}");
                told.cancelled = true;
            }
            Command::Compute { reads, part, .. } => {
                let by = match part {
                    Part::Near(by) => Some(*by),
                    _ => None,
                };
                for read in reads {
                    assert!(self.copies.contains(&(read.block, read.form)), "read incomplete: {read:?}");
                    let beside = match by {
                        Some(by) => self.machine.near(by).tiers.contains(&read.form.tier),
                        None => read.form.tier == self.fast,
                    };
                    assert!(beside && read.form.format.get().direct, "{read:?} by {by:?}");
                    assert!(self.needed.contains(&read.block), "computed, but not demanded: {read:?}");
                }
                self.computing.entry(by).or_default().push_back(reads.clone());
            }
            Command::MoveState(_) | Command::DropState { .. } => {
                panic!("no model here has states: {command:?}")
            }
            Command::HandOn(batch) => panic!("no stage here is one of several: {batch:?}"),
            Command::Finish { .. } | Command::Wake { .. } | Command::Tell(_) => {}
        }
    }

    fn see(&mut self, event: &Event) {
        match &event.kind {
            EventKind::ChunkDone { id, .. } => {
                let told = self.moves.get_mut(id).unwrap();
                told.outstanding -= 1;
                if told.whole && told.outstanding == 0 {
                    told.complete = true;
                    let MoveChunk { block, to, keep, .. } = told.first;
                    self.copies.extend(std::iter::once(to).chain(keep).map(|form| (block, form)));
                }
            }
            EventKind::LayerRouted { routed, .. } => {
                self.computing.entry(None).or_default().pop_front();
                assert!(
                    self.computing.values().all(VecDeque::is_empty),
                    "routed before the last demand was served"
                );
                self.left_out += self.needed.len() as u64;
                self.needed.clear();
                for expert in routed {
                    assert!(self.needed.insert(expert.block), "demanded twice in a step");
                    let fast = self.fast;
                    let mut copies = self.copies.iter().filter(|copy| copy.0 == expert.block);
                    self.hits += u64::from(copies.any(|copy| copy.1.tier == fast));
                }
                self.ask(routed);
            }
            EventKind::Passed(passed) => {
                for (.., routed) in passed.iter() {
                    let Some(routed) = routed else { continue };
                    for expert in routed {
                        let form = Form { tier: self.fast, format: self.native[expert.block.index()] };
                        assert!(
                            self.copies.contains(&(expert.block, form)),
                            "passed, but not there: {expert:?}"
                        );
                    }
                    self.hits += routed.len() as u64;
                    self.ask(routed);
                }
            }
            EventKind::LayerDone { .. } => self.computed(None),
            EventKind::NearDone { by, .. } => self.computed(Some(*by)),
            EventKind::HeadDone => drop(self.computing.entry(None).or_default().pop_front()),
            EventKind::Woken
            | EventKind::HandedOn(_)
            | EventKind::RequestArrived { .. }
            | EventKind::Foreseen { .. }
            | EventKind::Loaded
            | EventKind::MemoryPressure { .. }
            | EventKind::TierLost { .. }
            | EventKind::AcceleratorsLost { .. } => {}
            EventKind::ChunkFailed { id } => self.moves.get_mut(id).unwrap().outstanding -= 1,
        }
    }
}

impl<P> Witness<P> {
    fn ask(&mut self, routed: &[Routed]) {
        self.demanded += routed.len() as u64;
        self.asked.push(routed.iter().map(|expert| expert.block).collect());
    }

    /// One of them has computed what it was told first.
    fn computed(&mut self, by: Option<ProcessorId>) {
        for read in self.computing.get_mut(&by).and_then(VecDeque::pop_front).unwrap() {
            self.needed.remove(&read.block);
        }
    }
}

impl<P: Platform> Platform for Witness<P> {
    type Error = P::Error;

    fn next_event(&mut self) -> Result<Option<Event>, P::Error> {
        let event = self.world.next_event()?;
        event.iter().for_each(|event| self.see(event));
        Ok(event)
    }

    fn submit(&mut self, command: Command) -> Result<(), P::Error> {
        self.hear(&command);
        self.world.submit(command)
    }
}
