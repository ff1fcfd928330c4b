//! Responses of serving engines that carry the routed experts of their tokens: one JSON document, a list of them, or
//! one after the other as in JSON lines.
//!
//! - **vLLM** (`--enable-return-routed-experts`): `choices[i].routed_experts` is `[generated][layer][k]`, and the top
//!   level's `prompt_routed_experts` is `[prompt][layer][k]`, -1 where the prefix cache had the token. Of several choices
//!   the first one gets the prompt: it was run once.
//! - **SGLang** (`return_routed_experts`): `meta_info.routed_experts` (also inside a choice, or there as `sgl_ext`) is the
//!   base64 of little-endian int32 `[token][layer][k]` for all tokens but the last, -1 at layers without experts. The
//!   file does not say `k`: see [`crate::Options::top_k`]. The number of layers follows from `prompt_tokens` and
//!   `completion_tokens`, unless the response starts at a later token: see [`crate::Options::layers`].
//!
//! A response that decoded nothing is passed over. There are no gate weights in these formats.

use crate::error::{At, JsonFlaw, Problem, TraceError};
use crate::grid::{Grid, Recorded, assemble};
use crate::import::{Options, Source};
use crate::jsonl::Id;
use crate::routing::{RoutingTrace, TraceInfo};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

#[derive(Deserialize)]
struct Response {
    id: Option<Id>,
    #[serde(default)]
    choices: Vec<Choice>,
    prompt_routed_experts: Option<Grid>,
    meta_info: Option<MetaInfo>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    routed_experts: Option<Grid>,
    #[serde(alias = "sgl_ext", alias = "sglext")]
    meta_info: Option<MetaInfo>,
}

#[derive(Deserialize)]
struct MetaInfo {
    id: Option<Id>,
    routed_experts: Option<String>,
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Usage {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
}

/// A response, or a list of them.
struct Responses(Vec<Response>);

/// Reads a whole file.
pub(crate) fn decode(source: &Source, options: &Options) -> Result<RoutingTrace, TraceError> {
    let mut requests = Vec::new();
    for responses in serde_json::Deserializer::from_slice(source.bytes).into_iter::<Responses>() {
        let Responses(responses) = responses.map_err(|error| {
            let flaw = JsonFlaw::from(error);
            TraceError::at(At::Line(flaw.line, Some(flaw.column)), Problem::Response(flaw))
        })?;
        for response in responses {
            let place = At::Entry(format!("response {}", requests.len() + 1));
            response
                .take(source.name, options, &mut requests)
                .map_err(|problem| TraceError::at(place, problem))?;
        }
    }
    if requests.is_empty() {
        return Err(Problem::NoRoutedExperts.into());
    }
    assemble(requests, options)
}

impl Response {
    /// Adds what was recorded of the response.
    fn take(self, name: &str, options: &Options, requests: &mut Vec<Recorded>) -> Result<(), Problem> {
        let id = self.id.map(Id::text);
        let several = self.choices.len() > 1;
        let usage = self.usage.unwrap_or_default();
        if let Some(meta) = self.meta_info {
            requests.extend(meta.recorded(name, id.clone(), usage, options)?);
        }
        let mut prompt = self.prompt_routed_experts;
        let prompt_tokens = prompt
            .as_ref()
            .map(|prompt| prompt.ids.len() / (prompt.layers * prompt.top_k).max(1))
            .and_then(|tokens| u32::try_from(tokens).ok())
            .or(usage.prompt_tokens);
        for (index, choice) in self.choices.into_iter().enumerate() {
            let id = id.clone().map(|id| if several { format!("{id}/{index}") } else { id });
            if let Some(grid) = choice.routed_experts {
                let info = TraceInfo {
                    name: name.to_owned(),
                    request_id: id.clone(),
                    prompt_tokens,
                    ..TraceInfo::default()
                };
                requests.push(joined(info, prompt.take().unwrap_or_default(), grid)?);
            }
            if let Some(meta) = choice.meta_info {
                requests.extend(meta.recorded(name, id, usage, options)?);
            }
        }
        Ok(())
    }
}

/// The prompt and what follows it as one grid.
fn joined(info: TraceInfo, mut prompt: Grid, decoded: Grid) -> Result<Recorded, Problem> {
    if prompt.ids.is_empty() {
        return Ok(Recorded { info, grid: decoded, prompt: 0 });
    }
    if !decoded.ids.is_empty() && (prompt.layers, prompt.top_k) != (decoded.layers, decoded.top_k) {
        let say = |grid: &Grid| format!("{} layers, top {}", grid.layers, grid.top_k);
        return Err(Problem::NotAlike { found: say(&decoded), expected: say(&prompt) });
    }
    let tokens = prompt.ids.len() / (prompt.layers * prompt.top_k);
    prompt.ids.extend_from_slice(&decoded.ids);
    Ok(Recorded { info, grid: prompt, prompt: tokens })
}

impl MetaInfo {
    /// What SGLang recorded; `None` where it was not asked to.
    fn recorded(
        self,
        name: &str,
        id: Option<String>,
        usage: Usage,
        options: &Options,
    ) -> Result<Option<Recorded>, Problem> {
        let Some(text) = self.routed_experts else { return Ok(None) };
        if text.is_empty() {
            let empty = Recorded { info: TraceInfo::default(), grid: Grid::default(), prompt: 0 };
            return Ok(Some(empty));
        }
        let bytes = STANDARD.decode(text).map_err(|error| Problem::Base64(error.to_string()))?;
        let (words, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            let declared = (words.len() as u64 + 1) * 4;
            return Err(Problem::Size { declared, actual: bytes.len() as u64 });
        }
        let ids: Vec<i32> = words.iter().map(|word| i32::from_le_bytes(*word)).collect();
        let prompt_tokens = self.prompt_tokens.or(usage.prompt_tokens);
        let completion = self.completion_tokens.or(usage.completion_tokens);
        let completion = completion.ok_or(Problem::Unsaid { what: "completion_tokens" })? as usize;
        let top_k = options.top_k.ok_or(Problem::Unsaid { what: "top_k" })? as usize;
        // The last sampled token is in no layer's input.
        let decoded = completion.saturating_sub(1);
        let layers = match (options.layers, prompt_tokens) {
            (Some(layers), _) => layers as usize,
            (None, None) => return Err(Problem::Unsaid { what: "layers" }),
            (None, Some(prompt)) => {
                let places = (prompt as usize).saturating_add(decoded).saturating_mul(top_k);
                divided(ids.len(), places)?
            }
        };
        let tokens = divided(ids.len(), layers.saturating_mul(top_k))?;
        let prompt = tokens.checked_sub(decoded).ok_or(Problem::TokenCount { found: tokens, decoded })?;
        let request_id = id.or(self.id.map(Id::text));
        let info = TraceInfo { name: name.to_owned(), request_id, prompt_tokens, ..TraceInfo::default() };
        Ok(Some(Recorded { info, grid: Grid { layers, top_k, ids }, prompt }))
    }
}

fn divided(ids: usize, by: usize) -> Result<usize, Problem> {
    match ids.checked_div(by) {
        Some(quotient) if quotient * by == ids && (quotient > 0 || ids == 0) => Ok(quotient),
        _ => Err(Problem::Ragged { ids, by }),
    }
}

impl<'de> Deserialize<'de> for Responses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Responses, D::Error> {
        struct OneOrSeveral;
        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Responses;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a response or a list of responses")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Responses, A::Error> {
                let mut responses = Vec::new();
                while let Some(response) = list.next_element()? {
                    responses.push(response);
                }
                Ok(Responses(responses))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Responses, A::Error> {
                Response::deserialize(MapAccessDeserializer::new(map))
                    .map(|response| Responses(vec![response]))
            }
        }
        deserializer.deserialize_any(OneOrSeveral)
    }
}
