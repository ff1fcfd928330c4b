//! Conversations: sessions that begin like others and go on turn by turn, as a request trace whose prompts have numbered blocks.
//!
//! A session begins with one of several shared prefixes. Each of its turns adds a message and gets an answer, and the next prompt has
//! all of it; or it goes on from an earlier turn, and leaves out what came after that.

use crate::arrivals::{arrivals, lengths, stream};
use policy::{Nanos, Time};
use rand::RngExt;
use rand_distr::{Distribution, Exp1, Zipf};
use rand_pcg::Pcg64Mcg;
use scenarios::{Conversations, PrefixOrder, Process};
use std::num::NonZero;
use traces::requests::{MOST_TOKENS, Request, RequestTrace};

/// Streams of what is drawn.
const MESSAGE_STREAM: u64 = 0x6d65_7373_6167_6573;
const ANSWER_STREAM: u64 = 0x616e_7377_6572_7300;
const TURN_STREAM: u64 = 0x7475_726e_7300_0000;
const PREFIX_STREAM: u64 = 0x7072_6566_6978_6573;

/// What one session has said so far.
#[derive(Clone, Debug, Default)]
struct History {
    /// Numbers of its whole blocks.
    blocks: Vec<u64>,
    tokens: u32,
}

impl History {
    /// Adds tokens that no other session has: whole blocks get numbers of their own.
    fn add(&mut self, tokens: u32, block: u32, next: &mut u64) {
        self.tokens = self.tokens.saturating_add(tokens);
        while self.blocks.len() < (self.tokens / block) as usize {
            self.blocks.push(*next);
            *next += 1;
        }
    }

    /// Goes back to where it had so many tokens.
    fn back_to(&mut self, tokens: u32, block: u32) {
        self.tokens = tokens;
        self.blocks.truncate((tokens / block) as usize);
    }
}

/// The requests of conversations, in order of arrival; at most `limit`.
pub(crate) fn generate(spec: &Conversations, limit: Option<u32>, seed: u64) -> RequestTrace {
    let block = NonZero::new(spec.block).unwrap_or(NonZero::<u32>::MIN);
    let shared = u64::from(spec.prefix_tokens / block);
    // Numbers of shared prefixes come first.
    let mut next = shared.saturating_mul(spec.prefixes.into());
    let mut messages = lengths(spec.message, stream(seed, MESSAGE_STREAM));
    let mut answers = lengths(spec.answer, stream(seed, ANSWER_STREAM));
    let mut random = stream(seed, TURN_STREAM);
    let prefixes = prefixes(spec, stream(seed, PREFIX_STREAM));
    let begins = arrivals(Process::Poisson { rate: spec.rate }, seed);
    let mut requests: Vec<(Request, Vec<u64>)> = Vec::new();
    for (mut at, prefix) in begins.zip(prefixes).take(spec.sessions as usize) {
        let mut history = History {
            blocks: (prefix * shared..(prefix + 1) * shared).collect(),
            tokens: spec.prefix_tokens,
        };
        let mut ends = vec![history.tokens];
        for _ in 0..spec.turns {
            if random.random::<f64>() < spec.branch {
                let from = ends[random.random_range(0..ends.len())];
                history.back_to(from, block.get());
            }
            let (message, answer) = (messages.next().unwrap_or(1), answers.next().unwrap_or(1));
            let long = history.tokens.saturating_add(message).saturating_add(answer);
            if long > MOST_TOKENS {
                break;
            }
            history.add(message, block.get(), &mut next);
            let request = Request { at, prompt_tokens: history.tokens.max(1), output_tokens: answer.max(1) };
            requests.push((request, history.blocks.clone()));
            history.add(answer, block.get(), &mut next);
            ends.push(history.tokens);
            at = later(at, spec.think, &mut random);
        }
    }
    // Stable: of turns at the same time the earlier session's come first.
    requests.sort_by_key(|(request, _)| request.at);
    requests.truncate(limit.map_or(usize::MAX, |limit| limit as usize));
    RequestTrace::with_prefixes(block, requests)
}

/// The shared prefix of each session.
fn prefixes(spec: &Conversations, mut random: Pcg64Mcg) -> impl Iterator<Item = u64> {
    let count = u64::from(spec.prefixes.max(1));
    let zipf = match spec.order {
        PrefixOrder::InTurn => None,
        PrefixOrder::Zipf { skew } => Zipf::new(count as f64, skew).ok(),
    };
    (0..).map(move |session: u64| match &zipf {
        None => session % count,
        Some(zipf) => (zipf.sample(&mut random) as u64).clamp(1, count) - 1,
    })
}

fn later(at: Time, mean: Nanos, random: &mut Pcg64Mcg) -> Time {
    let share: f64 = Exp1.sample(random);
    Time(at.0.saturating_add((mean.0 as f64 * share) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use scenarios::{ArrivalRate, Length};
    use std::collections::BTreeSet;

    fn spec() -> Conversations {
        Conversations {
            sessions: 40,
            rate: ArrivalRate(2_000_000_000),
            turns: 5,
            think: Nanos(3_000_000_000),
            prefixes: 4,
            prefix_tokens: 1000,
            order: PrefixOrder::InTurn,
            branch: 0.0,
            message: Length::Uniform { from: 10, to: 300 },
            answer: Length::Fixed(100),
            block: 64,
        }
    }

    /// Leading blocks that two prompts have in common.
    fn alike(trace: &RequestTrace, one: usize, other: usize) -> usize {
        trace.prefix(one).iter().zip(trace.prefix(other)).take_while(|(a, b)| a == b).count()
    }

    #[test]
    fn turns_go_on_from_all_that_was_said() {
        let one = Conversations { sessions: 1, ..spec() };
        let trace = generate(&one, None, 7);
        assert_eq!(trace.requests().len(), 5);
        for turn in 1..5 {
            let (before, now) = (trace.requests()[turn - 1], trace.requests()[turn]);
            let added = now.prompt_tokens - before.prompt_tokens - before.output_tokens;
            assert!((10..=300).contains(&added) && now.at >= before.at);
            assert_eq!(alike(&trace, turn - 1, turn), trace.prefix(turn - 1).len());
            assert_eq!(trace.prefix(turn).len() as u32, now.prompt_tokens / 64);
        }
        let branched = generate(&Conversations { branch: 1.0, turns: 50, ..one }, None, 7);
        let back = (1..50).filter(|&turn| alike(&branched, turn - 1, turn) < branched.prefix(turn - 1).len());
        assert!(back.count() > 10);
    }

    #[test]
    fn sessions_share_their_prefix_and_nothing_else() {
        let trace = generate(&Conversations { turns: 1, ..spec() }, None, 7);
        let shared = (1000 / 64) as usize;
        for session in 4..40 {
            assert_eq!(alike(&trace, session - 4, session), shared);
            assert_eq!(alike(&trace, session - 1, session), 0);
        }
        let numbers: BTreeSet<u64> = (0..40).flat_map(|session| trace.prefix(session).to_vec()).collect();
        let whole: usize = (0..40).map(|session| trace.prefix(session).len()).sum();
        assert_eq!(numbers.len(), whole - 36 * shared);
    }

    #[test]
    fn popular_prefixes_come_more_often() {
        let zipf = Conversations {
            order: PrefixOrder::Zipf { skew: 1.0 },
            sessions: 4000,
            turns: 1,
            prefixes: 100,
            ..spec()
        };
        let trace = generate(&zipf, None, 7);
        let firsts = (0..4000).filter(|&session| trace.prefix(session)[0] == 0).count() as f64;
        // One over the hundredth harmonic number.
        assert!((firsts / 4000.0 - 1.0 / 5.187).abs() < 0.02, "{firsts}");
        assert_eq!(generate(&zipf, Some(9), 7).requests().len(), 9);
        assert_eq!(generate(&spec(), None, 3), generate(&spec(), None, 3));
        assert_ne!(generate(&spec(), None, 3), generate(&spec(), None, 4));
    }
}
