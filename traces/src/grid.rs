//! Selections as engines return them, `[token][layer][k]` with -1 where nothing was routed or recorded, made into a trace.

use crate::error::{At, Problem, TraceError};
use crate::import::{Options, experts_for};
use crate::routing::{PADDING, RoutingTrace, Shape, TraceInfo};
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, de};
use std::fmt;

/// The mark of a place where no expert is.
const NONE: i32 = -1;

/// Expert ids of consecutive tokens, or [`NONE`]. Every token has the same layers, every layer the same places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) layers: usize,
    pub(crate) top_k: usize,
    pub(crate) ids: Vec<i32>,
}

impl Grid {
    fn tokens(&self) -> std::slice::ChunksExact<'_, i32> {
        self.ids.chunks_exact((self.layers * self.top_k).max(1))
    }
}

/// One request of a recording: `prompt` of its tokens, then those it decoded.
pub(crate) struct Recorded {
    pub(crate) info: TraceInfo,
    pub(crate) grid: Grid,
    /// How many of the tokens are of the prompt.
    pub(crate) prompt: usize,
}

/// The trace of the requests that decoded something. Prompt tokens from the prefix cache and the last sampled token,
/// which no layer saw, are dropped where they are marked; so are layers that are marked in every token: they are dense.
pub(crate) fn assemble(requests: Vec<Recorded>, options: &Options) -> Result<RoutingTrace, TraceError> {
    let (layers, top_k) = alike(&requests)?;
    let requests: Vec<_> = requests.iter().filter_map(routed_part).collect();
    let routed = |&layer: &usize| {
        let mut places = requests.iter().flat_map(|part| part.tokens.chunks_exact(layers * top_k));
        places.any(|token| token[layer * top_k..][..top_k].iter().any(|&id| id != NONE))
    };
    let routed: Vec<usize> = (0..layers).filter(routed).collect();
    let (mut selections, mut traces, mut largest) = (Vec::new(), Vec::new(), 0);
    for part in &requests {
        let first = traces.last().map_or(0, |info: &TraceInfo| info.rows.end);
        let tokens = part.tokens.chunks_exact(layers * top_k);
        let rows = first + part.prompt_rows..first + tokens.len();
        traces.push(TraceInfo { rows, prompt_rows: part.prompt_rows, ..part.info.clone() });
        for (token, ids) in tokens.enumerate() {
            for (place, &layer) in routed.iter().enumerate() {
                let at = At::Selection { row: first + token, layer: place };
                for &id in &ids[layer * top_k..][..top_k] {
                    let id = expert(id).map_err(|problem| TraceError::at(at.clone(), problem))?;
                    largest = if id == PADDING { largest } else { largest.max(id) };
                    selections.push(id);
                }
            }
        }
    }
    if selections.is_empty() {
        return Err(Problem::Empty.into());
    }
    let shape = Shape::new(routed.len() as u32, experts_for(options.experts, largest), top_k as u32)?;
    RoutingTrace::new(shape, selections, None, traces)
}

/// A request without the tokens that were not routed.
struct RoutedPart<'a> {
    info: &'a TraceInfo,
    tokens: &'a [i32],
    prompt_rows: usize,
}

/// `None` where nothing was decoded.
fn routed_part(request: &Recorded) -> Option<RoutedPart<'_>> {
    let Recorded { info, grid, prompt } = request;
    let width = grid.layers * grid.top_k;
    let is_routed = |token: &[i32]| token.iter().any(|&id| id != NONE);
    let cached = grid.tokens().take(*prompt).take_while(|token| !is_routed(token)).count();
    let unseen = grid.tokens().skip(*prompt).rev().take_while(|token| !is_routed(token)).count();
    let tokens = &grid.ids[cached * width..grid.ids.len() - unseen * width];
    (tokens.len() > (prompt - cached) * width).then_some(RoutedPart {
        info,
        tokens,
        prompt_rows: prompt - cached,
    })
}

/// The layers and places of all requests that have tokens.
fn alike(requests: &[Recorded]) -> Result<(usize, usize), TraceError> {
    let mut filled = requests.iter().enumerate().filter(|(_, request)| !request.grid.ids.is_empty());
    let (_, first) = filled.next().ok_or(Problem::Empty)?;
    let (layers, top_k) = (first.grid.layers, first.grid.top_k);
    let say = |grid: &Grid| format!("{} layers, top {}", grid.layers, grid.top_k);
    match filled.find(|(_, other)| (other.grid.layers, other.grid.top_k) != (layers, top_k)) {
        Some((index, other)) => {
            let problem = Problem::NotAlike { found: say(&other.grid), expected: say(&first.grid) };
            Err(TraceError::at(At::Trace(index), problem))
        }
        None => Ok((layers, top_k)),
    }
}

fn expert(id: i32) -> Result<u16, Problem> {
    match u16::try_from(id) {
        Ok(id) if id < PADDING => Ok(id),
        _ if id == NONE => Ok(PADDING),
        _ if id < 0 => Err(Problem::NegativeExpert(id)),
        _ => Err(Problem::ExpertOutOfRange { id: id as u64, experts: PADDING as u32 }),
    }
}

impl<'de> Deserialize<'de> for Grid {
    /// From lists of lists of lists of numbers.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Grid, D::Error> {
        let mut lists = Lists::default();
        Level { lists: &mut lists, depth: 0 }.deserialize(deserializer)?;
        let [layers, top_k] = [lists.layers.unwrap_or(0), lists.top_k.unwrap_or(0)];
        Ok(Grid { layers, top_k, ids: lists.ids })
    }
}

/// What was read so far, with the lengths that every later list must have.
#[derive(Default)]
struct Lists {
    layers: Option<usize>,
    top_k: Option<usize>,
    ids: Vec<i32>,
}

/// A list of tokens (depth 0), of layers (1) or of expert ids (2).
struct Level<'a> {
    lists: &'a mut Lists,
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(["a list of tokens", "a list of layers", "a list of expert ids"][self.depth as usize])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Level { lists, depth } = self;
        let mut len = 0;
        if depth == 2 {
            while let Some(id) = list.next_element()? {
                lists.ids.push(id);
                len += 1;
            }
        } else {
            while list.next_element_seed(Level { lists, depth: depth + 1 })?.is_some() {
                len += 1;
            }
        }
        match depth {
            0 => Ok(()),
            1 => same(&mut lists.layers, len, "layers"),
            _ => same(&mut lists.top_k, len, "places"),
        }
    }
}

fn same<E: de::Error>(seen: &mut Option<usize>, len: usize, what: &str) -> Result<(), E> {
    match *seen.get_or_insert(len) {
        first if first == len && len > 0 => Ok(()),
        first => Err(Error::custom(format!("{len} {what}, expected {}", first.max(1)))),
    }
}
