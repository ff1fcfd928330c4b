//! The shape of an eviction rule: which resident block leaves when a slot is needed.

/// The ids that may not leave now.
pub trait Keep {
    /// Whether `id` has to stay.
    fn keeps(&self, id: u32) -> bool;
}

/// Nothing has to stay. Zero-sized: a rule compiled for it has no check left.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepNone;

impl Keep for KeepNone {
    #[inline(always)]
    fn keeps(&self, _id: u32) -> bool {
        false
    }
}

/// An eviction rule over dense ids. It knows what is resident and what it is worth, and has no capacity of its own:
/// whoever drives it says when something has to leave.
///
/// `now` is the driver's time, an access or a layer step; it never decreases. Each demand of an id is told once, by
/// exactly one of [`touch`](Rule::touch), [`insert`](Rule::insert) and [`miss`](Rule::miss).
///
/// # Panics
/// Every method that takes an id may panic where it is outside the universe the rule was built for.
pub trait Rule {
    /// Whether `id` is resident.
    fn contains(&self, id: u32) -> bool;

    /// Room is about to be made for `id`, which is absent and demanded: for a rule whose choice of what leaves depends on
    /// what comes in. It may be told more than once before the id comes in or is missed, or not at all where there is
    /// room.
    #[inline(always)]
    fn incoming(&mut self, _id: u32, _now: u64) {}

    /// A resident id is demanded.
    fn touch(&mut self, id: u32, now: u64);

    /// An absent id is demanded and becomes resident.
    fn insert(&mut self, id: u32, now: u64);

    /// An absent id is demanded and stays absent.
    fn miss(&mut self, _id: u32, _now: u64) {}

    /// Chooses the least valuable resident id that `keep` does not hold, and removes it. `None` where there is none.
    fn evict<K: Keep>(&mut self, now: u64, keep: &K) -> Option<u32>;

    /// A resident id has left for another reason. What was learnt about it stays.
    fn remove(&mut self, id: u32);

    /// Back to the first state: what was resident at the start, and nothing learnt. Time goes on.
    fn reset(&mut self);

    /// One demand for `id` with `free` slots left: a hit, or a miss that takes a free slot or that of the evicted
    /// id. Where nothing may leave, the id passes through uncached. Answers whether it was a hit.
    #[inline(always)]
    fn access<K: Keep>(&mut self, id: u32, now: u64, keep: &K, free: &mut usize) -> bool {
        if self.contains(id) {
            self.touch(id, now);
            return true;
        }
        if *free > 0 {
            *free -= 1;
        } else {
            self.incoming(id, now);
            if self.evict(now, keep).is_none() {
                self.miss(id, now);
                return false;
            }
        }
        self.insert(id, now);
        false
    }

    /// One demand after the other, each a step of its own from time `now` on. Answers how many were hits.
    #[inline(always)]
    fn access_each(&mut self, ids: &[u32], now: u64, free: &mut usize) -> u64 {
        (now..).zip(ids).map(|(now, &id)| u64::from(self.access(id, now, &KeepNone, free))).sum()
    }
}
