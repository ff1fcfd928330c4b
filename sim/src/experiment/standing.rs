//! A policy's standing over all cells of an experiment.

use super::{Compared, Regime};
use crate::report::percentile;
use serde::Serialize;

/// One policy over the cells in which it was ranked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// The policy.
    pub policy: String,
    /// The cells in which it was ranked.
    pub cells: usize,
    /// Those in which no policy had a smaller mean stall.
    pub first: usize,
    /// Its mean rank.
    pub mean_rank: f64,
    /// The median over cells of its mean stall over the best one's; null where it stalls and the best does not.
    pub median_ratio: Option<f64>,
    /// Tested cells in which it was first and every other policy significantly worse.
    pub wins: usize,
    /// Tested cells in which it was first without that, or could not be told from the best.
    pub ties: usize,
    /// Tested cells in which it was significantly worse than the best.
    pub losses: usize,
}

/// Every policy's standing over the cells of one regime, or of all, in the order in which policies first appear.
pub fn standings(cells: &[Vec<Compared>], regime: Option<Regime>) -> Vec<Standing> {
    let within = |compared: &&Vec<Compared>| {
        regime.is_none_or(|regime| compared.first().is_some_and(|first| first.regime == regime))
    };
    let cells: Vec<&Vec<Compared>> = cells.iter().filter(within).collect();
    let mut policies: Vec<&str> = Vec::new();
    for compared in cells.iter().copied().flatten().filter(|compared| compared.rank.is_some()) {
        if !policies.contains(&compared.policy.as_str()) {
            policies.push(&compared.policy);
        }
    }
    policies.into_iter().map(|policy| standing(policy, &cells)).collect()
}

fn standing(policy: &str, cells: &[&Vec<Compared>]) -> Standing {
    let mut standing = Standing {
        policy: policy.to_owned(),
        cells: 0,
        first: 0,
        mean_rank: 0.0,
        median_ratio: None,
        wins: 0,
        ties: 0,
        losses: 0,
    };
    let mut ratios = Vec::new();
    for cell in cells {
        let Some(own) = cell.iter().find(|compared| compared.policy == policy) else { continue };
        let Some(rank) = own.rank else { continue };
        standing.cells += 1;
        standing.first += usize::from(rank == 1);
        standing.mean_rank += rank as f64;
        ratios.push(own.regret.map_or(f64::INFINITY, |regret| 1.0 + regret));
        let others = cell.iter().filter(|other| other.policy != policy && other.rank.is_some());
        match (own.tested, own.tie) {
            (false, _) => {}
            (true, false) => standing.losses += 1,
            (true, true) if rank == 1 && others.into_iter().all(|other| !other.tie) => standing.wins += 1,
            (true, true) => standing.ties += 1,
        }
    }
    standing.mean_rank /= standing.cells.max(1) as f64;
    ratios.sort_by(f64::total_cmp);
    standing.median_ratio = percentile(&ratios, 50.0).filter(|ratio| ratio.is_finite());
    standing
}
