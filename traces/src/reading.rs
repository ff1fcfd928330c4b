//! What the statistics of a trace mean, in plain words.

use crate::info::Info;

/// Share of the accesses to the top tenth of the blocks from which popularity alone makes a cache work.
const STRONG_SKEW: f64 = 0.6;
/// The same from which it helps.
const SOME_SKEW: f64 = 0.3;
/// By how much a prediction must be better than popularity to be worth a prefetch.
const WORTH_FORESEEING: f64 = 0.1;
/// Blocks in a window, as a share of what independent tokens would touch, below which a request has favourites.
const FAVOURITES: f64 = 0.9;

/// One sentence or two on each statistic.
pub(crate) fn reading(info: &Info) -> Vec<String> {
    [skew(info), reuse(info), slots(info), prediction(info), windows(info)].into_iter().flatten().collect()
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn skew(info: &Info) -> Option<String> {
    let top = info.popularity.top_10_percent;
    let meaning = match top {
        _ if top >= STRONG_SKEW => "keeping the most popular ones goes far",
        _ if top >= SOME_SKEW => "popularity helps, and does not decide",
        _ => "popularity alone is a weak guide",
    };
    let (top, exponent) = (percent(top), info.zipf_exponent);
    Some(format!(
        "The busiest tenth of the blocks gets {top} of the accesses (Zipf exponent {exponent:.2}): {meaning}."
    ))
}

fn reuse(info: &Info) -> Option<String> {
    let reuse = &info.reuse;
    let first = format!("{:.2} % are first uses", 100.0 * reuse.first_uses);
    Some(match (reuse.p50_tokens, reuse.p90_tokens) {
        (Some(half), Some(most)) => {
            format!(
                "Half of the accesses come back within {}, nine of ten within {most}; {first}.",
                tokens(half)
            )
        }
        (Some(half), None) => format!("Half of the accesses come back within {}; {first}.", tokens(half)),
        (None, _) => format!("Most blocks never come back: {first}."),
    })
}

fn tokens(count: usize) -> String {
    if count == 1 { "1 token".to_owned() } else { format!("{count} tokens") }
}

fn slots(info: &Info) -> Option<String> {
    let all = info.layers * info.experts;
    let of = |hit_rate: f64| info.slots_for.iter().find(|slots| slots.hit_rate == hit_rate);
    let (half, most) = (of(0.5)?, of(0.9)?);
    let half = format!("Caching {} slots serves half of the accesses (LRU)", half.lru?);
    let Some(lru) = most.lru else {
        return Some(format!("{half}; not even all {all} serve nine of ten."));
    };
    let bound =
        most.bound.map(|slots| format!("; with the future known, {slots} would do")).unwrap_or_default();
    Some(format!("{half}, {lru} of {all} serve nine of ten{bound}."))
}

fn prediction(info: &Info) -> Option<String> {
    let known = info.predictability.as_ref()?;
    let (next, token) = (known.by_layers_ahead.first()?, known.by_layers_ahead.last()?);
    let popular = known.by_popularity;
    let meaning = match next.recall - popular {
        gain if gain >= WORTH_FORESEEING => "a prefetch has something to go by",
        _ => "a prefetch has little to go by",
    };
    let [next, token, popular] = [next.recall, token.recall, popular].map(percent);
    Some(format!(
        "One layer's choice foretells {next} of the next layer's, one token's {token} of the next token's, popularity {popular}: {meaning}."
    ))
}

fn windows(info: &Info) -> Option<String> {
    let all = info.layers * info.experts;
    let longest = info.working_set.iter().rev().find(|window| window.blocks.is_some())?;
    let (blocks, independent) = (longest.blocks?, longest.independent_blocks);
    let meaning = match blocks / independent {
        share if share < FAVOURITES => "a request has favourites",
        _ => "a request has no favourites to speak of",
    };
    let window = tokens(longest.tokens);
    Some(format!(
        "A window of {window} of one request touches {blocks:.0} of {all} blocks, where tokens independent of each other would touch {independent:.0}: {meaning}."
    ))
}
