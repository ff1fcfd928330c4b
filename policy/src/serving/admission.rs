//! Who of the queue joins a batch, and who gives way when the cache is full.

use super::{Active, Serving};
use crate::phase::Work;
use crate::units::{Bytes, Time};

impl Serving {
    /// Fills the batch from the queue, higher priorities first, then first come first served, while the next one can begin:
    /// while the step has tokens left and the cache has room for its whole prompt, which it takes at once. So no two prompts
    /// hold the cache from each other. Nor does a micro-batch take more than its share of the requests that there are.
    pub(super) fn admit<E>(
        &mut self,
        which: u32,
        now: Time,
        room: &mut u32,
        grow: &mut impl FnMut(Bytes) -> Result<bool, E>,
    ) -> Result<(), E> {
        let share = self.micro_batches.share(self.max_batch.min(self.running.len() + self.queue.len()));
        let tenant = self.tenant_of(self.phase);
        let own = self.members(which).filter(|active| active.times.tenant == tenant);
        let mut free = share.saturating_sub(own.count());
        while free > 0 && self.has_room(tenant) && (*room > 0 || self.chunk.is_none()) {
            let first = self.queue.iter().find(|(_, next)| next.phase == self.phase).map(|(rank, _)| *rank);
            let Some((rank, mut next)) = first.and_then(|rank| self.queue.remove_entry(&rank)) else { break };
            if let Some(cache) = &mut self.cache {
                let mut kept = 0;
                if self.chunk.is_some() {
                    kept = cache.begin(&mut next.lease, next.prompt);
                    next.cached = kept;
                }
                let blocks = next.lease.blocks();
                let found = self.checkpoints.as_ref().map(|known| known.find(&blocks, kept, next.prompt));
                if let Some(found) = found {
                    next.cached = found.hit.map_or(0, |hit| hit.tokens);
                    cache.clamp(&mut next.lease, next.cached);
                }
                if !cache.grow(&mut next.lease, next.prompt.max(next.cached + 1), grow)? {
                    cache.end(&mut next.lease);
                    next.cached = 0;
                    self.queue.insert(rank, next);
                    break;
                }
                if let Some((checkpoints, found)) = self.checkpoints.as_mut().zip(found) {
                    checkpoints.advance(now);
                    next.passage = checkpoints.begin(&blocks, next.prompt, found);
                }
            }
            if !std::mem::replace(&mut next.admitted, true) {
                next.times.admitted = now;
            }
            let found = next.cached.saturating_sub(next.known);
            next.known += found;
            next.times.prefix_tokens += found;
            self.used.prefix_tokens += u64::from(found);
            match (self.work(), next.prompt_left()) {
                (Work::Steps { tokens, .. }, _) => next.computing = tokens,
                (Work::Tokens, 0) => next.computing = 1,
                (Work::Tokens, _) => next.prefill(room),
            }
            next.micro_batch = which;
            next.rank = self.attends_to(next.times.request);
            self.running.push(next);
            free -= 1;
        }
        Ok(())
    }

    /// The place of the running request that is pre-empted first: of the lowest priority, the one that came in last; none that
    /// another stage computes.
    pub(super) fn last(&self) -> usize {
        let here = |(_, active): &(usize, &Active)| !self.micro_batches.is_under_way(active.micro_batch);
        let ranked = self.running.iter().enumerate().filter(here).max_by_key(|(_, active)| active.rank());
        ranked.map_or(0, |(place, _)| place)
    }

    /// Puts a running request back into the queue without its cache, which it computes again when its turn comes.
    pub(super) fn preempt(&mut self, place: usize) {
        let mut active = self.running.remove(place);
        if let Some(cache) = &mut self.cache {
            cache.end(&mut active.lease);
        }
        active.prompt = active.times.context + active.times.tokens;
        active.known = active.known.max(active.cached);
        active.times.preemptions += 1;
        (active.cached, active.computing) = (0, 0);
        self.used.preemptions += 1;
        self.queue.insert(active.rank(), active);
    }
}
