//! Layers that a world goes through by itself: it has leave from every controller, nothing flows that could slow a kernel
//! down, and nothing is expected that could begin to. As long as all that routers choose is there to be read, what happens
//! follows from what they choose, so no event is queued for it. The controllers hear of it afterwards ([`policy::passed`]), and
//! whatever else comes up meanwhile is in its place: a world stops where something is due before its own next instant.

use super::kernels::Alone;
use super::near::Near;
use super::ranks::{Held, Rank};
use super::tick;
use super::{LATEST, World, WorldError};
use policy::event::{Event, EventKind, Form, Part, Read, Routed, Slice};
use policy::passed::Passed;
use policy::{BlockId, LayerId, Nanos, Time};
use std::ops::Range;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Passing {
    /// Up to which layer's router it may go by itself, from the mixer that was commanded last.
    pub(super) leave: Option<LayerId>,
    /// Where it is on its way; one that is led has none of its own.
    way: Option<Way>,
    /// The kernel of the blocks that its accelerator reads on its way.
    blocks: Alone,
    /// What its routers have chosen last.
    chosen: Vec<Routed>,
    /// What the controller has not heard of.
    passed: Box<Passed>,
    /// Empty between uses; kept for its memory.
    reads: Vec<Read>,
}

/// The way of a world, and of those that it leads, through layers with blocks.
#[derive(Debug)]
struct Way {
    batch: Arc<[Slice]>,
    layer: LayerId,
    through: LayerId,
    /// What comes next, and when.
    next: Next,
    at: Time,
    /// Since when its own kernels run, and until when.
    since: Time,
    until: Time,
    /// The layers whose mixers run, if they are not booked yet.
    mixers: Range<u16>,
    /// When the last of all has computed its blocks.
    last: Time,
    /// Tokens that are at the accelerator where the most are.
    away: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    /// The layer's mixers have ended, everywhere.
    Mixed,
    /// Its blocks have been computed, here.
    Done,
}

impl World {
    /// Up to where it may go from a layer's router by itself.
    pub(super) fn leave_from(&self, layer: LayerId) -> Option<LayerId> {
        let shares_links = self.machine.peers.is_some_and(|peers| peers.shares_links());
        let undisturbed = self.fabric.is_idle()
            && self.moves.iter().next().is_none()
            && self.near.iter().all(Near::is_idle)
            && self.due.is_empty()
            && self.pressure.is_empty()
            && self.loading == 0
            && !self.stage.is_part()
            && !shares_links
            && !self.workload.foresees();
        self.passing.leave.filter(|&through| through > layer && undisturbed)
    }

    /// The same for all that it leads.
    pub(super) fn common_leave(&self, layer: LayerId) -> Option<LayerId> {
        let leave = self.leave_from(layer)?;
        self.others.iter().all(|rank| rank.world.leave_from(layer) == Some(leave)).then_some(leave)
    }

    /// Goes on by itself from where the mixer of a layer has ended.
    pub(super) fn set_out(&mut self, at: Time, layer: LayerId, through: LayerId, batch: Arc<[Slice]>) {
        self.passing.way = Some(Way {
            batch,
            layer,
            through,
            next: Next::Mixed,
            at,
            since: at,
            until: at,
            mixers: 0..0,
            last: at,
            away: None,
        });
    }

    /// Goes on until something else is due, or to where the controller is to be asked again.
    pub(super) fn go_on(&mut self) -> Result<Option<tick::Passed>, WorldError> {
        let due = self.queue.next_time();
        while let Some(mut way) = self.passing.way.take_if(|way| due.is_none_or(|due| way.at <= due)) {
            if way.at > LATEST {
                return Err(WorldError::TooLate);
            }
            self.now = way.at;
            match way.next {
                Next::Mixed => {
                    if !self.choose(&mut way)? {
                        self.ask(&way);
                        break;
                    }
                    self.read_blocks(&mut way)?;
                }
                Next::Done => {
                    self.ticks += 1;
                    self.end_blocks(way.layer, way.since, way.at);
                    if self.next_with_blocks(way.layer) >= way.through {
                        self.hand_back(way)?;
                        break;
                    }
                    self.mix_next(&mut way);
                }
            }
            self.passing.way = Some(way);
        }
        let asked = self.due.pop_front().map(|kind| Event { at: self.now, kind });
        Ok(asked.or_else(|| self.take_passed()).map(tick::Passed::Event))
    }

    /// Time its own kernels have run on this way that is not booked yet.
    pub(super) fn passing_time(&self) -> Nanos {
        self.passing.way.as_ref().map_or(Nanos::ZERO, |way| self.now.min(way.until).since(way.since))
    }

    fn take_passed(&mut self) -> Option<Event> {
        let at = self.passing.passed.last()?;
        Some(Event { at, kind: EventKind::Passed(std::mem::take(&mut self.passing.passed)) })
    }

    /// Mixers have ended, and the routers choose. Returns whether all that they choose is there.
    fn choose(&mut self, way: &mut Way) -> Result<bool, WorldError> {
        self.ticks += u64::from(!way.mixers.is_empty()) + u64::from(self.share.is_part());
        self.book_mixers(way.mixers.clone(), way.since);
        self.others.iter_mut().try_for_each(|rank| rank.catch_up(way.at))?;
        way.away = self.choose_shares(&way.batch, way.layer);
        Ok(self.is_there() && self.others.iter().all(|rank| rank.world.is_there()))
    }

    /// Whether all that was chosen is there to be read.
    fn is_there(&self) -> bool {
        self.passing.chosen.iter().all(|expert| self.memory.has(expert.block, self.form_read(expert.block)))
    }

    fn form_read(&self, block: BlockId) -> Form {
        Form { tier: self.fast, format: self.model.block(block).native }
    }

    /// The controllers are asked what to do about what was chosen.
    fn ask(&mut self, way: &Way) {
        let away = way.away.map(|tokens| (way.layer, tokens));
        let worlds = self.others.iter_mut().map(|rank| &mut rank.world);
        for world in worlds {
            world.ask_now(way.at, way.layer, away);
        }
        self.ask_now(way.at, way.layer, away);
    }

    fn ask_now(&mut self, at: Time, layer: LayerId, away: Option<(LayerId, u64)>) {
        (self.now, self.away) = (at, away);
        let routed = std::mem::take(&mut self.passing.chosen);
        let passed = self.take_passed().map(|event| event.kind);
        self.due.extend(passed);
        self.due.push_back(EventKind::LayerRouted { layer, routed });
    }

    /// The blocks that were chosen are computed.
    fn read_blocks(&mut self, way: &mut Way) -> Result<(), WorldError> {
        let (at, layer) = (way.at, way.layer);
        (way.next, way.at, way.since) = (Next::Done, self.begin_blocks(at, layer), at);
        (way.last, way.until) = (way.at, way.at);
        for rank in &mut self.others {
            let done = rank.world.begin_blocks(at, layer);
            rank.catch_up(done)?;
            rank.world.end_blocks(layer, at, done);
            way.last = way.last.max(done);
        }
        Ok(())
    }

    /// What each router gives to do; the tokens that go to the accelerator to which the most go, if any go anywhere.
    fn choose_shares(&mut self, batch: &[Slice], layer: LayerId) -> Option<u64> {
        if self.share.is_part() && self.model.is_routed(self.model.layer(layer)) {
            let others = self.others.iter_mut().map(|rank| &mut rank.world.passing.chosen);
            let all = std::iter::once(&mut self.passing.chosen).chain(others);
            let shares = self.workload.route_shares(batch, layer);
            all.zip(shares).for_each(|(chosen, share)| std::mem::swap(chosen, share));
            return Some(self.workload.most_gone());
        }
        let worlds = self.others.iter_mut().map(|rank| &mut rank.world);
        worlds.for_each(|world| world.choose_all(batch, layer));
        self.choose_all(batch, layer);
        None
    }

    fn choose_all(&mut self, batch: &[Slice], layer: LayerId) {
        self.passing.chosen = self.workload.route(batch, layer);
    }

    /// The blocks that were chosen last begin to be read; says when they will have been computed.
    fn begin_blocks(&mut self, at: Time, layer: LayerId) -> Time {
        let mut reads = std::mem::take(&mut self.passing.reads);
        self.passing.passed.routed(at, layer, &self.passing.chosen);
        for expert in &self.passing.chosen {
            let form = Form { tier: self.fast, format: self.model.block(expert.block).native };
            self.memory.compute_reads(expert.block, form);
            reads.push(Read { block: expert.block, form, tokens: expert.tokens });
        }
        self.passing.blocks = self.alone(self.operators.kernel((layer, Part::Experts), &[], 0, &reads));
        reads.clear();
        self.passing.reads = reads;
        at + self.passing.blocks.whole
    }

    /// The blocks that are being read have been computed.
    fn end_blocks(&mut self, layer: LayerId, since: Time, done: Time) {
        let Alone { kernel, whole, .. } = &self.passing.blocks;
        self.provenance.add(&kernel.booked, 1);
        self.compute_time += *whole;
        if let Some(timeline) = &mut self.timeline {
            timeline.compute(layer, Part::Experts, since, *whole);
        }
        self.passing.passed.done(done, layer);
        self.held_since = done;
    }

    fn next_with_blocks(&self, layer: LayerId) -> LayerId {
        let coming = layer.0 + 1..self.model.layers.len() as u16;
        coming.map(LayerId).find(|&layer| self.model.layer(layer).blocks > 0).unwrap_or(layer)
    }

    /// The mixers up to the next layer with blocks; before them tokens come back, after them all wait for the last.
    fn mix_next(&mut self, way: &mut Way) {
        let next = self.next_with_blocks(way.layer);
        way.mixers = way.layer.0 + 1..next.0 + 1;
        let there = self.workload.ranks_there();
        if let Some(tokens) = way.away.filter(|_| there > 1) {
            let (time, _, booked) = self.operators.exchange(way.layer, tokens, there);
            self.provenance.add(&booked, 1);
            self.ticks += 1;
            self.all_wait(way.last + time);
        }
        way.since = self.held_since;
        way.until = self.mix(way.mixers.clone(), &way.batch);
        way.at = way.until;
        for rank in &mut self.others {
            let since = rank.world.held_since;
            way.at = way.at.max(rank.world.mix(way.mixers.clone(), &way.batch));
            rank.world.book_mixers(way.mixers.clone(), since);
        }
        if self.share.is_part() {
            self.all_wait(way.at);
        }
        (way.next, way.layer) = (Next::Mixed, next);
    }

    pub(super) fn all_wait(&mut self, until: Time) {
        self.wait_for_others(until);
        self.others.iter_mut().for_each(|rank| rank.world.wait_for_others(until));
    }

    fn wait_for_others(&mut self, until: Time) {
        self.waited += until.since(self.held_since);
        self.held_since = until;
    }

    /// When mixers end that begin now, which is when it was last held.
    fn mix(&mut self, mixers: Range<u16>, batch: &Arc<[Slice]>) -> Time {
        let end = mixers.fold(self.held_since, |end, layer| end + self.mixer(LayerId(layer), batch).whole);
        self.held_since = end;
        end
    }

    fn book_mixers(&mut self, mixers: Range<u16>, mut since: Time) {
        for layer in mixers {
            let Some(Alone { kernel, whole, .. }) = self.mixers.known(LayerId(layer)) else { continue };
            self.provenance.add(&kernel.booked, 1);
            self.compute_time += *whole;
            if let Some(timeline) = &mut self.timeline {
                timeline.compute(LayerId(layer), Part::Mixer, since, *whole);
            }
            since = since + *whole;
        }
    }

    /// The mixers before the last router are as if the controllers had commanded them: they hear of what that chooses.
    fn hand_back(&mut self, way: Way) -> Result<(), WorldError> {
        let Way { batch, layer, through, away, .. } = way;
        let (mixers, last) = (layer.0 + 1..through.0, (through, Part::Mixer));
        for rank in &mut self.others {
            rank.hear()?;
            rank.world.resume(mixers.clone(), last, batch.clone(), away.map(|tokens| (layer, tokens)))?;
        }
        self.resume(mixers, last, batch, away.map(|tokens| (layer, tokens)))?;
        if away.is_some() {
            self.meet();
        }
        Ok(())
    }

    /// What it would have come to by events: a command that waits for the others, if tokens are away, or that begins.
    fn resume(
        &mut self,
        mixers: Range<u16>,
        last: (LayerId, Part),
        batch: Arc<[Slice]>,
        away: Option<(LayerId, u64)>,
    ) -> Result<(), WorldError> {
        self.away = away;
        if away.is_some() {
            self.held = Some(Held::Begins { mixers, last, batch });
            return Ok(());
        }
        self.now = self.held_since;
        self.begin_compute(mixers, last, batch, Vec::new())
    }
}

impl Rank {
    /// Takes in what comes before `at`, in its place among the layers that it has passed.
    fn catch_up(&mut self, at: Time) -> Result<(), WorldError> {
        while self.world.queue.next_time().is_some_and(|due| due < at) {
            self.hear()?;
            self.advance()?;
        }
        Ok(())
    }

    /// The controller hears of the layers that were passed.
    fn hear(&mut self) -> Result<(), WorldError> {
        self.world.take_passed().map_or(Ok(()), |event| self.handle(event))
    }
}
