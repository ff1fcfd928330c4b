//! Expert parallelism: several accelerators, each a world with a controller of its own, that wait for each other.
//!
//! What each fetches and computes depends on what routers choose, so none stands for the others and all are simulated. They
//! have the same batch, as they end each step together: every one attends to requests of its own, and computes the tokens of
//! all that chose its experts. They meet where tokens change places: when mixers have ended, before the next mixers or the
//! head begin, and at the end of a step. The first one leads. When it comes to such a place, each of the others is brought
//! there too; all go on when the last one has come.

use super::{Passed, Tick, World, WorldError};
use crate::queue;
use policy::directory::Claim;
use policy::event::{Command, Event, EventKind, Part, Platform, Routed, Slice};
use policy::parallel::ExpertShare;
use policy::{Bytes, LayerId, Nanos, Orchestrator, Time};
use std::mem::discriminant;
use std::ops::Range;
use std::sync::Arc;

/// Another accelerator of the run.
pub(super) struct Rank {
    orchestrator: Orchestrator,
    pub(super) world: World,
    /// Empty between uses; kept for its memory.
    commands: Vec<Command>,
    /// Entries of the directory on which it was sent what its routers give it next, and how many no longer stood by then.
    claims: Vec<Claim>,
    pub(super) outdated: u64,
}

/// What a rank does when all have come as far as it.
pub(super) enum Held {
    /// A command begins.
    Begins { mixers: Range<u16>, last: (LayerId, Part), batch: Arc<[Slice]> },
    /// A command begins, and the tokens that were elsewhere are back.
    Returned { mixers: Range<u16>, last: (LayerId, Part), batch: Arc<[Slice]> },
    /// A command has ended.
    Ended { last: (LayerId, Part), batch: Arc<[Slice]> },
}

impl World {
    /// The same for one of several accelerators that have experts of their own.
    pub(crate) fn shared(self, share: ExpertShare) -> World {
        World { workload: self.workload.shared(share, self.fast), share, ..self }
    }

    /// Leads another accelerator of the run: those that have other experts, or the later stages of a pipeline in their order.
    pub(crate) fn lead(&mut self, orchestrator: Orchestrator, mut world: World) {
        world.led = true;
        let (commands, claims) = (Vec::new(), Vec::new());
        self.others.push(Rank { orchestrator, world, commands, claims, outdated: 0 });
    }

    /// The accelerators that it leads.
    pub fn others(&self) -> impl Iterator<Item = (&Orchestrator, &World)> {
        self.others.iter().map(|rank| (&rank.orchestrator, &rank.world))
    }

    /// Time it waited for the others, tokens on their way included.
    pub fn waited(&self) -> Nanos {
        self.waited
    }

    /// Waits until all ranks have come as far. The leader brings the others there, and says when all go on.
    pub(super) fn hold(&mut self, held: Held) -> Result<(), WorldError> {
        (self.held, self.held_since) = (Some(held), self.now);
        if self.led {
            return Ok(());
        }
        for rank in &mut self.others {
            rank.come(self.held.as_ref())?;
        }
        self.take_notes();
        match &self.held {
            Some(Held::Ended { last: (layer, Part::Mixer), batch }) => {
                let (layer, batch) = (*layer, batch.clone());
                match self.common_leave(layer) {
                    Some(through) => self.pass_together(layer, through, batch),
                    None => self.meet(),
                }
            }
            _ => self.meet(),
        }
        Ok(())
    }

    /// All wait: says when they go on.
    pub(super) fn meet(&mut self) {
        let mut last = self.latest_held();
        let there = self.workload.ranks_there();
        // Tokens that are elsewhere come back before what begins then.
        let back = matches!(self.held, Some(Held::Begins { .. })) && there > 1;
        if let Some((layer, tokens)) = self.away.filter(|_| back) {
            let (time, crossing, booked) = self.operators.exchange(layer, tokens, there);
            self.provenance.add(&booked, 1);
            last = last + time.saturating_sub(self.exchange_alone(crossing));
            if crossing > Bytes::ZERO {
                self.leave(crossing);
                self.others.iter_mut().for_each(|rank| rank.world.leave(crossing));
            }
        }
        self.release(last);
        self.others.iter_mut().for_each(|rank| rank.world.release(last));
    }

    /// Since when the last of all has waited.
    fn latest_held(&self) -> Time {
        self.others.iter().fold(self.held_since, |last, rank| last.max(rank.world.held_since))
    }

    /// All have leave to go on by themselves, from where the last of them has come.
    fn pass_together(&mut self, layer: LayerId, through: LayerId, batch: Arc<[Slice]>) {
        let at = self.latest_held();
        self.held = None;
        self.others.iter_mut().for_each(|rank| rank.world.held = None);
        self.all_wait(at);
        self.set_out(at, layer, through, batch);
    }

    /// So much is to cross the links before what is held begins.
    fn leave(&mut self, crossing: Bytes) {
        self.leaving = crossing;
    }

    /// What is held goes on at an instant.
    fn release(&mut self, at: Time) {
        self.released = self.held.take();
        self.queue.push(at, queue::Rank::Completion, Tick::Met);
    }

    /// All have come as far: what was held goes on.
    pub(super) fn met(&mut self) -> Result<Option<EventKind>, WorldError> {
        self.waited += self.now.since(self.held_since);
        match self.released.take() {
            Some(Held::Begins { mixers, last, batch }) if self.leaving > Bytes::ZERO => {
                let bytes = std::mem::take(&mut self.leaving);
                (self.returning, self.held_since) = (Some(Held::Returned { mixers, last, batch }), self.now);
                self.exchange_tokens(bytes);
                Ok(None)
            }
            Some(Held::Begins { mixers, last, batch } | Held::Returned { mixers, last, batch }) => {
                self.away = None;
                self.begin_compute(mixers, last, batch, Vec::new()).map(|()| None)
            }
            Some(Held::Ended { last, batch }) => Ok(self.ended(last, &batch)),
            None => Ok(None),
        }
    }

    /// What a layer's router gives this accelerator to do. The leader asks it once, for all: it is there before the others.
    pub(super) fn route_share(&mut self, batch: &[Slice], layer: LayerId) -> Vec<Routed> {
        if let Some(handed) = self.handed.pop_front() {
            return handed;
        }
        let mut shares = self.workload.route_shares(batch, layer).iter_mut().map(std::mem::take);
        let own = shares.next().unwrap_or_default();
        let shares: Vec<_> = shares.collect();
        for ((rank, place), share) in self.others.iter_mut().zip(1..).zip(shares) {
            rank.claims.extend(self.workload.relied_on(layer, place, &share));
            rank.world.handed.push_back(share);
        }
        if let Some(replicas) = self.workload.replicas_of(layer) {
            self.others.iter_mut().for_each(|rank| rank.world.workload.learn(layer, replicas));
        }
        own
    }

    /// The run is over: what the others still have under way ends.
    pub(super) fn finish_others(&mut self) -> Result<(), WorldError> {
        self.others.iter_mut().try_for_each(|rank| rank.go_on(|_| true))
    }
}

impl Rank {
    /// Goes on until it waits for the others.
    fn come(&mut self, there: Option<&Held>) -> Result<(), WorldError> {
        self.go_on(|world| world.held.is_none())?;
        match self.world.held.as_ref().map(discriminant) == there.map(discriminant) {
            true => Ok(()),
            false => Err(self.failed("it does not come to where the others wait")),
        }
    }

    fn failed(&self, why: impl ToString) -> WorldError {
        let World { share, stage, .. } = self.world;
        match stage.is_part() {
            true => WorldError::Stage { stage: stage.index, why: why.to_string() },
            false => WorldError::Rank { rank: share.rank, why: why.to_string() },
        }
    }

    /// The loop of a run.
    fn go_on(&mut self, going: impl Fn(&World) -> bool) -> Result<(), WorldError> {
        while going(&self.world) && self.advance()? {}
        Ok(())
    }

    /// One instant of it; whether there was one.
    pub(super) fn advance(&mut self) -> Result<bool, WorldError> {
        match self.world.instant()? {
            Passed::Event(event) => self.handle(event)?,
            Passed::Inside => {}
            Passed::Over => return Ok(false),
        }
        Ok(true)
    }

    /// What the controller makes of an event, carried out.
    pub(super) fn handle(&mut self, event: Event) -> Result<(), WorldError> {
        if matches!(event.kind, EventKind::LayerRouted { .. }) {
            let confirmed = |claim| self.orchestrator.confirm(claim).is_err();
            self.outdated += self.claims.drain(..).filter(|&claim| confirmed(claim)).count() as u64;
        }
        let mut commands = std::mem::take(&mut self.commands);
        if let Err(error) = self.orchestrator.handle(event, &mut commands) {
            return Err(self.failed(error));
        }
        self.orchestrator.take_left();
        commands.drain(..).try_for_each(|command| self.world.submit(command))?;
        self.commands = commands;
        Ok(())
    }
}
