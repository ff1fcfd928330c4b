//! Searches over made-up machines: more is better there, and how much is enough is known.

use super::figures::{COMPLETED, Figures, THROUGHPUT, TPOT};
use super::*;
use policy::Bytes;
use proptest::prelude::*;
use scenarios::Price;
use std::sync::atomic::{AtomicUsize, Ordering};

const BOUNDS: [Bound; 1] = [Bound { metric: "tpot", figure: TPOT, limit_ms: 50.0 }];

/// Machines of which each has a price and a speed. A configuration meets the objective when its speed, gigabytes and number
/// come to enough.
#[derive(Clone, Debug)]
struct Made {
    space: Space,
    /// Cents an hour and speed, by machine.
    machines: Vec<(u64, u64)>,
    enough: u64,
    /// Below this many gigabytes nothing fits; in so many there is room for everything.
    fits: u64,
    everything: u64,
}

impl Made {
    fn number(&self, point: &[usize], name: &str) -> u64 {
        let at = self.space.at(point).find(|(axis, _)| axis.name == name);
        at.and_then(|(_, value)| value.split(' ').next()?.parse().ok()).unwrap_or(0)
    }

    fn machine(&self, point: &[usize]) -> usize {
        self.number(point, "machine") as usize
    }

    fn does(&self, point: &[usize]) -> u64 {
        let (_, speed) = self.machines[self.machine(point)];
        (speed + self.number(point, "hbm").min(self.everything)) * u64::from(self.space.replicas(point).get())
    }

    /// The least candidate that does enough, by looking at all.
    fn least(&self, minimize: Minimize) -> Option<Candidate> {
        let all = self.space.points().into_iter().filter_map(|point| self.describe(&point).unwrap().ok());
        let enough = all.filter(|candidate| self.does(&candidate.point) >= self.enough);
        enough.min_by(|a, b| a.rank(minimize).cmp(&b.rank(minimize)))
    }

    fn figures(&self, point: &[usize]) -> Figures {
        let mut figures = [1.0; figures::COUNT];
        figures[TPOT] = 50.0 * self.enough as f64 / self.does(point).max(1) as f64;
        figures[figures::REJECTED] = 0.0;
        (figures[THROUGHPUT], figures[COMPLETED]) = (self.does(point) as f64, 10.0);
        figures
    }

    fn answer(&self, question: &Question<'_>) -> Plan {
        plan(question, self).unwrap_or_else(|wrong| panic!("{wrong}"))
    }
}

impl Bench for Made {
    type Error = String;
    type Misfit = String;

    fn describe(&self, point: &[usize]) -> Result<Result<Candidate, String>, String> {
        let (gigabytes, machine) = (self.number(point, "hbm"), self.machine(point));
        if gigabytes < self.fits {
            return Ok(Err(format!("{gigabytes} GB is too little")));
        }
        let (date, source) = ("2026-01-01".to_owned(), "made up".to_owned());
        let price = Price {
            micros_per_hour: self.machines[machine].0 * 10_000,
            currency: "USD".to_owned(),
            date,
            source,
        };
        Ok(Ok(Candidate {
            point: point.to_vec(),
            machine: machine.to_string(),
            replicas: self.space.replicas(point).get(),
            accelerators: 1,
            fast: Bytes(gigabytes * 1_000_000_000),
            price: Some(price),
            roomy: (gigabytes >= self.everything).then(|| "memory.hbm".to_owned()),
        }))
    }

    fn seeds(&self) -> usize {
        2
    }

    fn run(&self, point: &[usize], ask: &Ask<'_>) -> Result<Option<Vec<Run>>, String> {
        let mut run = self.figures(point);
        let (name, percent) = ask.with.map_or(("", 100), |(resource, percent)| (resource.name, percent));
        if name == "link" {
            run[TPOT] *= 100.0 / percent as f64;
        }
        Ok((name != "kv").then(|| ask.seeds.clone().map(|_| cut(run, ask.until)).collect()))
    }
}

/// A run that is stopped where a limit is passed.
fn cut(run: Figures, until: &[Bound]) -> Run {
    match until.iter().find(|bound| run[bound.figure] > bound.limit_ms) {
        None => Run::Whole(run),
        Some(&Bound { metric, limit_ms: limit, .. }) => Run::Stopped(Stopped { metric, limit, after: 0.25 }),
    }
}

fn space(axes: &[(&str, &str)]) -> Space {
    let axes = axes.iter().map(|(name, values)| Axis::new(name, values, None).unwrap());
    Space::new(axes.collect()).unwrap()
}

fn question(space: &Space) -> Question<'_> {
    let minimize = Minimize::Cost;
    Question { space, bounds: &BOUNDS, minimize, exhaustive: false, evaluations: 1000, search_seed: 0 }
}

const AXES: [(&str, &str); 3] = [("machine", "0,1,2"), ("count", "1..6"), ("hbm", "1 GB..40 GB")];

#[test]
fn what_binds_is_the_resource_that_helps_and_the_step_that_misses() {
    let made = Made {
        space: space(&AXES[2..]),
        machines: vec![(100, 0)],
        enough: 30,
        fits: 1,
        everything: u64::MAX,
    };
    let plan = made.answer(&question(&made.space));
    assert_eq!((plan.method, plan.points), (Method::Bisection, 40));
    assert!(plan.tried.len() <= 8, "{} points for a bisection of 40", plan.tried.len());
    let binding = plan.binding.unwrap();
    assert_eq!((binding.metric, binding.resource), ("tpot", "link"));
    assert_eq!((binding.steps[0].value.as_deref(), binding.steps[0].then), (Some("29 GB"), Less::Misses));
    assert!((binding.less[1].latency_change - 1.0 / 9.0).abs() < 1e-9);
    let gains: Vec<_> = plan.sensitivity.iter().map(|gain| gain.resource).collect();
    assert_eq!(gains, ["memory", "link", "compute", "memory_bandwidth"]);
    assert!((plan.sensitivity[1].latency_change + 1.0 / 11.0).abs() < 1e-9 && plan.unlimited.is_empty());
    // Where less does not fit, it is the room that binds.
    let tight = Made { fits: 35, ..made };
    let plan = tight.answer(&question(&tight.space));
    let binding = plan.binding.unwrap();
    assert_eq!((binding.resource, binding.steps[0].then, plan.misfits), ("memory", Less::Misfit, Some(34)));
}

#[test]
fn what_no_machine_meets_has_a_nearest_point() {
    let made = Made {
        space: space(&AXES),
        machines: vec![(100, 0), (200, 5), (300, 9)],
        enough: 10_000,
        fits: 1,
        everything: u64::MAX,
    };
    let plan = made.answer(&question(&made.space));
    assert!(plan.best.is_none() && !plan.unlimited.is_empty());
    let nearest = plan.nearest.unwrap();
    assert_eq!(made.does(&nearest.candidate.point), (9 + 40) * 6);
    // The largest of each machine rules the rest of it out; bisection goes there by halves.
    assert!(plan.tried.len() <= 12, "{} of 720 points", plan.tried.len());
}

#[test]
fn a_value_that_fits_nothing_is_a_slip_and_a_range_may_begin_too_low() {
    let made = Made {
        space: space(&AXES[2..]),
        machines: vec![(100, 0)],
        enough: 30,
        fits: 99,
        everything: u64::MAX,
    };
    assert!(
        matches!(plan(&question(&made.space), &made), Err(PlanError::Misfit(why)) if why.starts_with("40 GB"))
    );
}

#[test]
fn more_that_is_worse_after_all_is_seen_one_step_below() {
    struct Dented(Made);
    impl Bench for Dented {
        type Error = String;
        type Misfit = String;
        fn describe(&self, point: &[usize]) -> Result<Result<Candidate, String>, String> {
            self.0.describe(point)
        }
        fn seeds(&self) -> usize {
            1
        }
        fn run(&self, point: &[usize], ask: &Ask<'_>) -> Result<Option<Vec<Run>>, String> {
            let runs = ask.seeds.clone().map(|_| cut(self.figures(point), ask.until)).collect();
            Ok(ask.with.is_none().then_some(runs))
        }
    }
    impl Dented {
        fn figures(&self, point: &[usize]) -> Figures {
            // At 20 GB, where bisection asks first, it is worse than at 18.
            let gigabytes = self.0.number(point, "hbm");
            let meets = (18..20).contains(&gigabytes) || gigabytes > 20;
            let mut figures = self.0.figures(point);
            figures[TPOT] = if meets { 40.0 } else { 60.0 };
            figures
        }
    }
    let made = Made {
        space: space(&AXES[2..]),
        machines: vec![(100, 0)],
        enough: 30,
        fits: 1,
        everything: u64::MAX,
    };
    let dented = Dented(made);
    let plan = plan(&question(&dented.0.space), &dented).unwrap();
    let best = plan.best.unwrap();
    let below = dented.0.space.below(&best.candidate.point).next().unwrap().1;
    assert!(dented.figures(&best.candidate.point)[TPOT] <= 50.0);
    assert!(dented.figures(&below)[TPOT] > 50.0, "the neighbour below misses");
}

#[test]
fn prices_must_be_known_and_in_one_currency() {
    struct Priced(Made, AtomicUsize);
    impl Bench for Priced {
        type Error = String;
        type Misfit = String;
        fn describe(&self, point: &[usize]) -> Result<Result<Candidate, String>, String> {
            let mut candidate = self.0.describe(point)?.unwrap();
            let other = candidate.machine == "1";
            candidate.price = candidate.price.filter(|_| !other || self.1.load(Ordering::Relaxed) == 1);
            if let Some(price) = candidate.price.as_mut().filter(|_| other) {
                price.currency = "EUR".to_owned();
            }
            Ok(Ok(candidate))
        }
        fn seeds(&self) -> usize {
            self.0.seeds()
        }
        fn run(&self, point: &[usize], ask: &Ask<'_>) -> Result<Option<Vec<Run>>, String> {
            self.0.run(point, ask)
        }
    }
    let made = Made {
        space: space(&[("machine", "0,1")]),
        machines: vec![(100, 9), (50, 9)],
        enough: 5,
        fits: 0,
        everything: u64::MAX,
    };
    let priced = Priced(made, AtomicUsize::new(0));
    let ask = |minimize| plan(&Question { minimize, ..question(&priced.0.space) }, &priced);
    let refused = |answer: Result<Plan, PlanError<String, String>>| answer.map(drop).unwrap_err().to_string();
    assert!(refused(ask(Minimize::Cost)).starts_with("1 has no price"));
    assert!(ask(Minimize::Machines).is_ok(), "what is not asked for need not be known");
    priced.1.store(1, Ordering::Relaxed);
    assert!(refused(ask(Minimize::Cost)).contains("EUR and in USD"));
}

#[test]
fn a_genetic_search_comes_near_the_least_of_a_grid_too_large_to_list() {
    let axes = [("machine", "0,1,2"), ("count", "1..64"), ("hbm", "1 GB..400 GB")];
    let made = Made {
        space: space(&axes),
        machines: vec![(100, 0), (170, 200), (900, 300)],
        enough: 2500,
        fits: 1,
        everything: u64::MAX,
    };
    let ask = |search_seed| made.answer(&Question { search_seed, evaluations: 400, ..question(&made.space) });
    let plan = ask(0);
    assert_eq!(plan.method, Method::Nsga2);
    let (found, least) = (plan.best.unwrap(), made.least(Minimize::Cost).unwrap());
    let cost = |candidate: &Candidate| candidate.micros_per_hour().unwrap() as f64;
    // 400 runs for 76,800 points: within a quarter.
    assert!(cost(&found.candidate) <= 1.25 * cost(&least), "{found:?} {least:?}");
    let points =
        |plan: &Plan| plan.tried.iter().map(|tried| tried.candidate.point.clone()).collect::<Vec<_>>();
    let jobs = |jobs| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(jobs).build().unwrap();
        pool.install(|| points(&ask(1)))
    };
    assert_eq!(jobs(1), jobs(3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn bisection_finds_what_looking_at_all_finds(
        machines in prop::collection::vec((1..400_u64, 0..60_u64), 3),
        enough in 1..500_u64,
        fits in 1..40_u64,
        everything in 1..60_u64,
        minimize in prop::sample::select(vec![Minimize::Cost, Minimize::Memory, Minimize::Machines]),
    ) {
        let made = Made { space: space(&AXES), machines, enough, fits, everything };
        let ask = Question { minimize, ..question(&made.space) };
        let plan = made.answer(&ask);
        let least = made.least(minimize);
        prop_assert_eq!(plan.best.as_ref().map(|best| best.candidate.clone()), least);
        prop_assert!(!plan.cut_short && plan.tried.len() < 60, "{} of 720", plan.tried.len());
        let best = plan.best.as_ref().map(|best| best.candidate.rank(minimize));
        let all = made.answer(&Question { exhaustive: true, ..ask });
        prop_assert_eq!(all.best.as_ref().map(|best| best.candidate.rank(minimize)), best);
        prop_assert_eq!(all.tried.len() + all.misfits.unwrap(), 720);
        prop_assert!(all.tried.iter().all(|tried| tried.stopped.is_none()), "all are run to their end");
        // Nothing that was run beats a point of the front, and each other point is beaten by one of them.
        let front: Vec<_> = all.front.iter().map(|tried| tried.candidate.clone()).collect();
        for tried in &all.tried {
            let score = |of: &Tried| {
                (of.candidate.micros_per_hour(), of.candidate.bytes(), of.estimates[TPOT].mean, -of.estimates[THROUGHPUT].mean * f64::from(of.candidate.replicas))
            };
            let (cost, bytes, latency, throughput) = score(tried);
            let beaten = all.front.iter().any(|other| {
                let theirs = score(other);
                theirs.0 <= cost && theirs.1 <= bytes && theirs.2 <= latency && theirs.3 <= throughput
            });
            prop_assert!(beaten);
            let strictly = all.tried.iter().any(|other| {
                let theirs = score(other);
                theirs.0 < cost && theirs.1 < bytes && theirs.2 < latency && theirs.3 < throughput
            });
            prop_assert!(!(strictly && front.contains(&tried.candidate)));
        }
    }
}

/// Seeds whose latencies lie apart, and how often each was run.
struct Spread {
    made: Made,
    /// Latency by seed, as a share of the limit, where the configuration is just enough.
    seeds: Vec<f64>,
    ran: AtomicUsize,
}

impl Bench for Spread {
    type Error = String;
    type Misfit = String;

    fn describe(&self, point: &[usize]) -> Result<Result<Candidate, String>, String> {
        self.made.describe(point)
    }

    fn seeds(&self) -> usize {
        self.seeds.len()
    }

    fn run(&self, point: &[usize], ask: &Ask<'_>) -> Result<Option<Vec<Run>>, String> {
        let run = |seed: usize| {
            self.ran.fetch_add(1, Ordering::Relaxed);
            let mut figures = self.made.figures(point);
            figures[TPOT] *= self.seeds[seed];
            cut(figures, ask.until)
        };
        Ok(ask.with.is_none().then(|| ask.seeds.clone().map(run).collect()))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_stopped_run_speaks_for_its_point(
        seeds in prop::collection::vec(0.7..1.3_f64, 1..6), enough in 1..30_u64,
    ) {
        let machines = vec![(100, 0)];
        let made = Made { space: space(&[("hbm", "9 GB..20 GB")]), machines, enough, fits: 1, everything: u64::MAX };
        let spread = Spread { made, seeds, ran: AtomicUsize::new(0) };
        let ask = question(&spread.made.space);
        let runs = |exhaustive| {
            spread.ran.store(0, Ordering::Relaxed);
            let plan = plan(&Question { exhaustive, ..ask }, &spread).unwrap();
            (plan, spread.ran.load(Ordering::Relaxed))
        };
        let ((stopped, fewer), (whole, all)) = (runs(false), runs(true));
        let best = |plan: &Plan| plan.best.as_ref().map(|best| best.candidate.clone());
        prop_assert_eq!(best(&stopped), best(&whole));
        for (short, long) in stopped.tried.iter().zip(&whole.tried) {
            prop_assert!(short.stopped.is_none() || !long.meets(), "what was stopped misses");
        }
        prop_assert!(stopped.best.iter().all(|best| best.runs.len() == spread.seeds.len()), "the answer has all its seeds");
        prop_assert_eq!(all, 12 * spread.seeds.len());
        prop_assert!(best(&stopped).is_none() || fewer <= all);
        // Where nothing will do, the nearest is told by whole runs.
        let nearest = |plan: &Plan| plan.nearest.as_ref().map(|tried| (tried.candidate.clone(), tried.violation));
        prop_assert_eq!(nearest(&stopped), nearest(&whole));
    }
}
