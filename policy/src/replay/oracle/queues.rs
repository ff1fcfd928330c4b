//! Rules that are made of queues, as their papers write them: the first of a list is the oldest.

use super::{Model, S3_FIFO, W_TINY_LFU};
use crate::replay::ReplayInput;

fn take(list: &mut Vec<u32>, id: u32) -> bool {
    let place = list.iter().position(|&other| other == id);
    place.map(|place| list.remove(place)).is_some()
}

fn oldest(list: &[u32], open: &[u32]) -> Option<u32> {
    list.iter().copied().find(|id| open.contains(id))
}

/// ARC: T1, T2, B1, B2 and the target of T1.
pub(super) struct ArcLists {
    capacity: usize,
    t: [Vec<u32>; 2],
    b: [Vec<u32>; 2],
    target: f64,
    /// The ghost list that the id which asks for room is in, if it has asked.
    adapted: Option<Option<usize>>,
}

impl ArcLists {
    pub(super) fn new(capacity: usize) -> ArcLists {
        ArcLists { capacity, t: [vec![], vec![]], b: [vec![], vec![]], target: 0.0, adapted: None }
    }

    fn adapt(&mut self, id: u32) -> Option<usize> {
        let ghosts = (0..2).find(|&list| self.b[list].contains(&id));
        let [b1, b2] = [self.b[0].len() as f64, self.b[1].len() as f64];
        match ghosts {
            Some(0) => {
                self.target = (self.target + if b1 >= b2 { 1.0 } else { b2 / b1 }).min(self.capacity as f64)
            }
            Some(_) => self.target = (self.target - if b2 >= b1 { 1.0 } else { b1 / b2 }).max(0.0),
            None => {}
        }
        ghosts
    }
}

impl Model for ArcLists {
    fn hit(&mut self, id: u32, _now: usize) {
        self.t.iter_mut().for_each(|list| {
            take(list, id);
        });
        self.t[1].push(id);
    }

    fn make_room(&mut self, id: u32, _now: usize, open: &[u32]) -> Option<u32> {
        let ghosts = self.adapt(id);
        self.adapted = Some(ghosts);
        let t1 = self.t[0].len() as f64;
        let first = t1 > self.target || (t1 == self.target && ghosts == Some(1));
        let lists = if first { [0, 1] } else { [1, 0] };
        let (list, victim) = lists.into_iter().find_map(|list| Some((list, oldest(&self.t[list], open)?)))?;
        take(&mut self.t[list], victim);
        self.b[list].push(victim);
        Some(victim)
    }

    fn come_in(&mut self, id: u32, _now: usize) {
        let ghosts = match self.adapted.take() {
            Some(ghosts) => ghosts,
            None => self.adapt(id),
        };
        match ghosts {
            Some(list) => {
                take(&mut self.b[list], id);
                self.t[1].push(id);
            }
            None => self.t[0].push(id),
        }
        if self.t[0].len() + self.b[0].len() > self.capacity {
            self.b[0].remove(0);
        } else if self.t.iter().chain(&self.b).map(Vec::len).sum::<usize>() > 2 * self.capacity {
            self.b[1].remove(0);
        }
    }

    fn pass_by(&mut self, _id: u32, _now: usize) {
        self.adapted = None;
    }
}

/// S3-FIFO: the small and the main queue with the demands of each id in it, and the ghosts.
pub(super) struct S3Queues {
    small_size: usize,
    ghost_size: usize,
    threshold: u32,
    small: Vec<(u32, u32)>,
    main: Vec<(u32, u32)>,
    ghosts: Vec<u32>,
    was_ghost: bool,
    evicted: bool,
}

impl S3Queues {
    pub(super) fn new(capacity: usize) -> S3Queues {
        let [small, ghosts, threshold] = S3_FIFO;
        S3Queues {
            small_size: ((capacity as f64 * small) as usize).max(1),
            ghost_size: (capacity as f64 * ghosts) as usize,
            threshold: threshold as u32,
            small: Vec::new(),
            main: Vec::new(),
            ghosts: Vec::new(),
            was_ghost: false,
            evicted: false,
        }
    }

    fn haunt(&mut self, id: u32) {
        self.ghosts.push(id);
        if self.ghosts.len() > self.ghost_size {
            self.ghosts.remove(0);
        }
    }

    fn leave_small(&mut self, open: &[u32]) -> Option<u32> {
        loop {
            let place = self.small.iter().position(|(id, _)| open.contains(id))?;
            let (id, demands) = self.small.remove(place);
            if demands < self.threshold {
                self.haunt(id);
                return Some(id);
            }
            self.main.push((id, 0));
        }
    }

    fn leave_main(&mut self, open: &[u32]) -> Option<u32> {
        loop {
            let place = self.main.iter().position(|(id, _)| open.contains(id))?;
            let (id, demands) = self.main.remove(place);
            if demands == 0 {
                return Some(id);
            }
            self.main.push((id, demands - 1));
        }
    }
}

impl Model for S3Queues {
    fn hit(&mut self, id: u32, _now: usize) {
        for (_, demands) in self.small.iter_mut().chain(&mut self.main).filter(|(other, _)| *other == id) {
            *demands = (*demands + 1).min(3);
        }
    }

    fn make_room(&mut self, id: u32, _now: usize, open: &[u32]) -> Option<u32> {
        self.was_ghost = take(&mut self.ghosts, id);
        self.evicted = true;
        if self.small.len() >= self.small_size {
            self.leave_small(open).or_else(|| self.leave_main(open))
        } else {
            self.leave_main(open).or_else(|| self.leave_small(open))
        }
    }

    fn come_in(&mut self, id: u32, _now: usize) {
        let was_ghost = std::mem::take(&mut self.was_ghost) || take(&mut self.ghosts, id);
        if was_ghost || (!self.evicted && self.small.len() >= self.small_size) {
            self.main.push((id, 0));
        } else {
            self.small.push((id, 0));
        }
    }

    fn pass_by(&mut self, id: u32, _now: usize) {
        if std::mem::take(&mut self.was_ghost) {
            self.haunt(id);
        }
    }
}

/// W-TinyLFU: the window, the two segments of the main part, and how often each id was demanded of late.
pub(super) struct TinyLfuQueues {
    window_size: usize,
    main_size: usize,
    protected_size: usize,
    sample: u64,
    window: Vec<u32>,
    probation: Vec<u32>,
    protected: Vec<u32>,
    counts: Vec<u8>,
    demands: u64,
}

impl TinyLfuQueues {
    pub(super) fn new(input: &ReplayInput) -> TinyLfuQueues {
        let [window, protected, sample] = W_TINY_LFU;
        let window_size = ((input.capacity as f64 * window) as usize).max(1);
        let main_size = input.capacity.saturating_sub(window_size);
        TinyLfuQueues {
            window_size,
            main_size,
            protected_size: (main_size as f64 * protected) as usize,
            sample: ((input.capacity as f64 * sample) as u64).max(1),
            window: Vec::new(),
            probation: Vec::new(),
            protected: Vec::new(),
            counts: vec![0; input.demands.universe() as usize],
            demands: 0,
        }
    }

    fn count(&mut self, id: u32) {
        let count = &mut self.counts[id as usize];
        *count = (*count + 1).min(15);
        self.demands += 1;
        if self.demands.is_multiple_of(self.sample) {
            self.counts.iter_mut().for_each(|count| *count /= 2);
        }
    }
}

impl Model for TinyLfuQueues {
    fn hit(&mut self, id: u32, _now: usize) {
        self.count(id);
        if take(&mut self.window, id) {
            self.window.push(id);
            return;
        }
        let _ = take(&mut self.probation, id) || take(&mut self.protected, id);
        self.protected.push(id);
        if self.protected.len() > self.protected_size {
            self.probation.push(self.protected.remove(0));
        }
    }

    fn make_room(&mut self, _id: u32, _now: usize, open: &[u32]) -> Option<u32> {
        let candidate = oldest(&self.window, open);
        let victim = oldest(&self.probation, open).or_else(|| oldest(&self.protected, open));
        let count = |id: u32| self.counts[id as usize];
        let leaves = match (candidate, victim) {
            (Some(candidate), Some(victim)) if count(candidate) > count(victim) => {
                take(&mut self.window, candidate);
                self.probation.push(candidate);
                victim
            }
            (Some(candidate), _) => candidate,
            (None, victim) => victim?,
        };
        for list in [&mut self.window, &mut self.probation, &mut self.protected] {
            take(list, leaves);
        }
        Some(leaves)
    }

    fn come_in(&mut self, id: u32, _now: usize) {
        self.count(id);
        self.window.push(id);
        while self.window.len() > self.window_size
            && self.probation.len() + self.protected.len() < self.main_size
        {
            self.probation.push(self.window.remove(0));
        }
    }

    fn pass_by(&mut self, id: u32, _now: usize) {
        self.count(id);
    }
}
