//! What checkpoints of recurrent states did, as rows of a run's table.

use super::percent;
use policy::Bytes;
use sim::checkpoint_figures::CheckpointFigures;

/// The rows of a run with checkpoints.
pub(super) fn rows(figures: &CheckpointFigures) -> Vec<[String; 2]> {
    let CheckpointFigures { hit_tokens, seen_tokens, recomputed_tokens, restores, recomputes, .. } = figures;
    let tokens = format!(
        "{hit_tokens} prompt tokens spared, {}; of {seen_tokens} computed before, {recomputed_tokens} computed again",
        percent(figures.token_hit_rate)
    );
    let requests = format!(
        "{restores} requests restored, {} of those that begin like another; {recomputes} began anew",
        percent(figures.reuse_rate)
    );
    let mut rows = vec![
        ["checkpoints".to_owned(), tokens],
        [String::new(), requests],
        [
            String::new(),
            format!(
                "{} made, {} not kept; {} at most on the way between requests and pools",
                figures.made,
                figures.not_kept,
                Bytes(figures.staged_peak_bytes)
            ),
        ],
    ];
    rows.extend(figures.pools.iter().map(|pool| {
        let (peak, room) = (Bytes(pool.peak_bytes), Bytes(pool.room_bytes));
        let mut row =
            format!("{peak} of {room} at the peak, {} hits, {} given up", pool.hits, pool.evictions);
        for (count, what) in [(pool.lowered, "moved down"), (pool.reduced, "coded in fewer bits")] {
            if count > 0 {
                row.push_str(&format!(", {count} {what}"));
            }
        }
        [format!("  {}", pool.tier), row]
    }));
    let held: f64 = figures.states.iter().map(|state| state.byte_seconds).sum();
    let states = figures.states.iter().filter(|state| state.byte_seconds > 0.0);
    let shares = states.map(|state| format!("{} {}", state.state, percent(state.byte_seconds / held)));
    rows.push(["  by state".to_owned(), shares.collect::<Vec<_>>().join(", ")]);
    rows
}
