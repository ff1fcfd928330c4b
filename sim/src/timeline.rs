//! What happened when, as Chrome trace events that Perfetto opens: a process for the device (compute, stall, coding),
//! one for the links (a track for each direction, one more for each further engine it kept busy at once), and one for
//! the tiers (a counter each: bytes held by managed blocks).

use policy::event::{Form, MoveClass, Part, Source};
use policy::{BlockId, Bytes, LayerId, LinkId, Machine, Model, MoveId, Nanos, ProcessorId, TierId, Time};
use serde::Serialize;
use std::io::{self, Write};
use std::sync::Arc;

/// So many spans, and so many changes of levels, are kept of a run.
pub const ROOM: usize = 400_000;

const DEVICE: u32 = 1;
const LINKS: u32 = 2;
const TIERS: u32 = 3;
const PROCESSES: [(u32, &str); 3] = [(DEVICE, "device"), (LINKS, "links"), (TIERS, "tiers")];

/// Tracks of the device; those of the links follow.
const COMPUTE: u32 = 1;
const STALL: u32 = 2;
const HOST: u32 = 3;
const CODING: u32 = 4;
const DEVICE_TRACKS: [(u32, &str); 4] =
    [(COMPUTE, "compute"), (STALL, "stall"), (HOST, "host compute"), (CODING, "coding")];
/// The track of a first processor of a memory, beyond those of all links and their engines.
const NEAR: u32 = 1 << 24;

/// A chunk as an engine carried it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The move it belongs to.
    pub id: MoveId,
    /// What was moved.
    pub block: BlockId,
    /// What it is made of.
    pub from: Source,
    /// The copy made.
    pub to: Form,
    /// Why.
    pub class: MoveClass,
    /// Bytes that crossed.
    pub bytes: Bytes,
    /// How long it waited before an engine took it up.
    pub queued: Nanos,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Compute(LayerId, Part),
    Stall(LayerId),
    Coding(BlockId, Source, Form),
    Chunk(Chunk),
}

#[derive(Clone, Copy, Debug)]
struct Span {
    track: u32,
    from: Time,
    to: Time,
    what: What,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    tier: TierId,
    at: Time,
    bytes: Bytes,
}

/// One engine of a link direction: its track, and when it was last busy.
#[derive(Clone, Copy, Debug)]
struct Engine {
    link: LinkId,
    track: u32,
    until: Time,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Timeline {
    machine: Arc<Machine>,
    model: Arc<Model>,
    room: usize,
    engines: Vec<Engine>,
    spans: Vec<Span>,
    levels: Vec<Level>,
    /// The last level of each tier: an index into `levels`.
    last_level: Vec<Option<usize>>,
    /// When the last part of a layer had been computed.
    computed: Time,
    spans_left_out: u64,
    levels_left_out: u64,
    complete_until: Option<Time>,
}

impl Timeline {
    /// An empty timeline with room for so many spans and so many changes of levels; the file says what had none.
    pub fn new(machine: Arc<Machine>, model: Arc<Model>, room: usize) -> Timeline {
        let engine = |index: usize| Engine {
            link: LinkId(index as u8),
            track: CODING + 1 + index as u32,
            until: Time(0),
        };
        Timeline {
            engines: (0..machine.links.len()).map(engine).collect(),
            last_level: vec![None; machine.tiers.len()],
            machine,
            model,
            room,
            spans: Vec::new(),
            levels: Vec::new(),
            computed: Time(0),
            spans_left_out: 0,
            levels_left_out: 0,
            complete_until: None,
        }
    }

    /// A part of a layer is computed. Experts that begin later than the accelerator was free have waited for memory.
    pub fn compute(&mut self, layer: LayerId, part: Part, from: Time, length: Nanos) {
        if let Part::Near(by) = part {
            self.push(self.near_track(by), from, length, What::Compute(layer, part));
            return;
        }
        if part == Part::Experts && from > self.computed {
            let free = self.computed;
            self.push(STALL, free, from.since(free), What::Stall(layer));
        }
        self.push(COMPUTE, from, length, What::Compute(layer, part));
        self.computed = from + length;
    }

    fn near_track(&self, by: ProcessorId) -> u32 {
        if self.machine.near(by).of_host { HOST } else { NEAR + u32::from(by.0) }
    }

    /// A block changes its format within a tier.
    pub fn coding(&mut self, block: BlockId, before: Source, after: Form, from: Time, length: Nanos) {
        self.push(CODING, from, length, What::Coding(block, before, after));
    }

    /// A link direction has carried a chunk. Chunks come in the order in which they were done.
    pub fn carried(&mut self, link: LinkId, chunk: Chunk, from: Time, to: Time) {
        // The engine that was busy last leaves the longest gaps open for chunks that began earlier.
        let free = self.engines.iter_mut().filter(|engine| engine.link == link && engine.until <= from);
        let track = match free.max_by_key(|engine| engine.until) {
            Some(engine) => {
                engine.until = to;
                engine.track
            }
            None => {
                let track = CODING + 1 + self.engines.len() as u32;
                self.engines.push(Engine { link, track, until: to });
                track
            }
        };
        self.push(track, from, to.since(from), What::Chunk(chunk));
    }

    fn push(&mut self, track: u32, from: Time, length: Nanos, what: What) {
        if self.spans.len() < self.room {
            self.spans.push(Span { track, from, to: from + length, what });
        } else {
            self.spans_left_out += 1;
            self.complete_until.get_or_insert(from);
        }
    }

    /// Notes how full a tier is. Of several changes at one instant the last one counts.
    pub fn level(&mut self, tier: TierId, at: Time, bytes: Bytes) {
        let last = &mut self.last_level[tier.index()];
        if let Some(level) = last.and_then(|index| self.levels.get_mut(index)) {
            if level.at == at {
                level.bytes = bytes;
            }
            if level.bytes == bytes {
                return;
            }
        }
        if self.levels.len() < self.room {
            *last = Some(self.levels.len());
            self.levels.push(Level { tier, at, bytes });
        } else {
            self.levels_left_out += 1;
            self.complete_until.get_or_insert(at);
        }
    }

    /// Writes the trace-event JSON.
    ///
    /// # Errors
    /// What the writer reports.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        write_together(out, &[("", self)])
    }

    /// Writes its events beside those of others: processes have the prefix in their names, and numbers from `first` on.
    fn write_events<W: Write>(&self, events: &mut Events<W>, prefix: &str, first: u32) -> io::Result<()> {
        events.first = first;
        self.write_names(events, prefix)?;
        for span in &self.spans {
            self.write_span(events, span)?;
        }
        for level in &self.levels {
            let name = &self.machine.tier(level.tier).name;
            let args = Args::Level { block_bytes: level.bytes };
            events.put(TraceEvent { ts: Some(micros(level.at)), ..event("C", TIERS, name, args) })?;
        }
        if let Some(at) = self.complete_until {
            let kept = format!("incomplete from here: {}", self.left_out());
            let mark = event("i", DEVICE, &kept, Args::Mark {});
            events.put(TraceEvent { ts: Some(micros(at)), tid: Some(COMPUTE), s: Some("g"), ..mark })?;
        }
        Ok(())
    }

    fn part_name(&self, part: Part) -> String {
        match part {
            Part::Mixer => "mixer".into(),
            Part::Experts => "experts".into(),
            Part::Near(by) => format!("experts on {}", self.machine.near(by).name),
            Part::Head => "head".into(),
        }
    }

    fn left_out(&self) -> LeftOut {
        LeftOut {
            spans_left_out: self.spans_left_out,
            levels_left_out: self.levels_left_out,
            complete_until_us: self.complete_until.map(micros),
        }
    }

    fn write_names<W: Write>(&self, events: &mut Events<W>, prefix: &str) -> io::Result<()> {
        for (pid, name) in PROCESSES {
            let name = format!("{prefix}{name}");
            events.put(event("M", pid, "process_name", Args::Name { name: &name }))?;
            let sort_index = events.first + pid;
            events.put(event("M", pid, "process_sort_index", Args::Sort { sort_index }))?;
        }
        let mut name_track = |pid, tid, sort_index, name: &str| -> io::Result<()> {
            let named = event("M", pid, "thread_name", Args::Name { name });
            events.put(TraceEvent { tid: Some(tid), ..named })?;
            let sorted = event("M", pid, "thread_sort_index", Args::Sort { sort_index });
            events.put(TraceEvent { tid: Some(tid), ..sorted })
        };
        for (track, name) in DEVICE_TRACKS {
            name_track(DEVICE, track, track, name)?;
        }
        for (by, near) in (0..).map(ProcessorId).zip(&self.machine.near).filter(|(_, near)| !near.of_host) {
            let track = self.near_track(by);
            name_track(DEVICE, track, track, &format!("{} compute", near.name))?;
        }
        for (index, engine) in self.engines.iter().enumerate() {
            let link = self.machine.link(engine.link);
            let [from, to] = [link.from, link.to].map(|tier| self.machine.tier(tier).name.as_str());
            let number = 1 + self.engines[..index].iter().filter(|other| other.link == engine.link).count();
            let further = if number > 1 { format!(", engine {number}") } else { String::new() };
            let name = format!("{} {from} to {to}{further}", link.name);
            name_track(LINKS, engine.track, u32::from(engine.link.0), &name)?;
        }
        Ok(())
    }

    fn write_span<W: Write>(&self, events: &mut Events<W>, span: &Span) -> io::Result<()> {
        let format = |form: Form| form.format.name();
        let source = |source: Source| source.copy().map_or("recipe", format);
        let (pid, name, args) = match span.what {
            What::Compute(layer, part) => {
                (DEVICE, format!("L{} {}", layer.0, self.part_name(part)), Args::Layer { layer })
            }
            What::Stall(layer) => (DEVICE, "stall".to_owned(), Args::Layer { layer }),
            What::Coding(block, from, to) => {
                let name = format!("{} to {}", self.model.block_name(block), format(to));
                (DEVICE, name, Args::Coding { from: source(from), to: format(to) })
            }
            What::Chunk(Chunk { id, block, from, to, class, bytes, queued }) => {
                let name = format!("{} {}", self.model.block_name(block), format(to));
                let (from, to, queued_us) = (source(from), format(to), queued.0 as f64 / 1e3);
                (LINKS, name, Args::Chunk { id, class, from, to, bytes, queued_us })
            }
        };
        events.put(TraceEvent {
            tid: Some(span.track),
            ts: Some(micros(span.from)),
            dur: Some(span.to.since(span.from).0 as f64 / 1e3),
            ..event("X", pid, &name, args)
        })
    }
}

/// Writes several timelines into one trace, each with its name before the names of its processes. What the cap has cost is
/// that of the first.
///
/// # Errors
/// What the writer reports.
pub fn write_together(out: impl Write, timelines: &[(&str, &Timeline)]) -> io::Result<()> {
    let mut events = Events { out, any: false, first: 0 };
    events.out.write_all(b"{\"displayTimeUnit\":\"ns\",\"otherData\":")?;
    serde_json::to_writer(&mut events.out, &timelines.first().map(|(_, timeline)| timeline.left_out()))?;
    events.out.write_all(b",\"traceEvents\":[")?;
    for ((prefix, timeline), index) in timelines.iter().zip(0..) {
        timeline.write_events(&mut events, prefix, index * PROCESSES.len() as u32)?;
    }
    events.out.write_all(b"\n]}\n")
}

fn micros(at: Time) -> f64 {
    at.0 as f64 / 1e3
}

/// What the cap has cost.
#[derive(Serialize)]
struct LeftOut {
    spans_left_out: u64,
    levels_left_out: u64,
    complete_until_us: Option<f64>,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} spans and {} levels left out", self.spans_left_out, self.levels_left_out)
    }
}

#[derive(Serialize)]
struct TraceEvent<'a> {
    name: &'a str,
    ph: &'static str,
    pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    args: Args<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Args<'a> {
    Name { name: &'a str },
    Sort { sort_index: u32 },
    Layer { layer: LayerId },
    Coding { from: &'static str, to: &'static str },
    Chunk { id: MoveId, class: MoveClass, from: &'static str, to: &'static str, bytes: Bytes, queued_us: f64 },
    Level { block_bytes: Bytes },
    Mark {},
}

fn event<'a>(ph: &'static str, pid: u32, name: &'a str, args: Args<'a>) -> TraceEvent<'a> {
    TraceEvent { name, ph, pid, tid: None, ts: None, dur: None, s: None, args }
}

/// The elements of a JSON array, one a line.
struct Events<W> {
    out: W,
    any: bool,
    /// Added to the numbers of processes.
    first: u32,
}

impl<W: Write> Events<W> {
    fn put(&mut self, event: TraceEvent<'_>) -> io::Result<()> {
        let event = TraceEvent { pid: self.first + event.pid, ..event };
        let separator: &[u8] = if std::mem::replace(&mut self.any, true) { b",\n" } else { b"\n" };
        self.out.write_all(separator)?;
        Ok(serde_json::to_writer(&mut self.out, &event)?)
    }
}
