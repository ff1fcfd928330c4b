use super::*;
use crate::directory::News;
use crate::event::Form;
use crate::format::FormatId;

const FAST: TierId = TierId(0);

/// So many accelerators with two experts each, of one layer whose first expert is block 10.
fn replicas(of: u32, number: u32) -> Replicas {
    let share = ExpertShare { of, replicas: number, losable: true, ..ExpertShare::default() };
    Replicas::new([BlockId(10)].into_iter(), 2 * of, share, (10 + 2 * of as usize, FAST))
}

fn routed(expert: u32, tokens: u32) -> Routed {
    Routed { block: BlockId(10 + expert), tokens, gate_squared: 0.0 }
}

fn has(device: u32, number: u64, expert: u32, there: bool) -> Note {
    let copies = if there { vec![Form { tier: FAST, format: FormatId::BF16 }] } else { vec![] };
    Note { device, epoch: 0, news: News::Has { number, block: BlockId(10 + expert), copies } }
}

fn parts(replicas: &Replicas, expert: u32, tokens: u32) -> Vec<(u32, u32)> {
    replicas.parts(0, expert, tokens).collect()
}

#[test]
fn the_heaviest_is_halved_and_goes_where_least_is() {
    // Two experts at each of four: 100, 20, 30 and 10 tokens.
    let tokens = [90, 10, 10, 10, 20, 10, 5, 5];
    let (owners, there) = ([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2, 3]);
    assert_eq!(chosen(&tokens, &owners, &there, 1)[0], [3]);
    // A third of 90 is still more than all others: 30 at the first, the last and the second.
    let three = chosen(&tokens, &owners, &there, 2);
    assert_eq!(three[0], [3, 1]);
    assert_eq!(loads(&tokens, &owners, &three, 4), [40.0, 50.0, 30.0, 40.0]);
    // Nobody has two of the same, nobody who is lost has one, and what nobody asks for has none.
    let most = chosen(&tokens, &owners, &there, 1000);
    assert!(most.iter().all(|at| at.len() == 3));
    assert_eq!(chosen(&tokens, &owners, &[0, 1, 2], 1)[0], [1]);
    assert!(chosen(&[0; 8], &owners, &there, 5).iter().all(Vec::is_empty));
}

#[test]
fn a_new_replica_is_asked_for_once_and_tokens_go_to_those_who_have_the_expert() {
    let mut replicas = replicas(2, 1);
    assert_eq!(parts(&replicas, 1, 5), [(0, 5)]);
    for _ in 0..EVERY {
        replicas.observe(0, 10, &[routed(1, 9), routed(2, 2)]);
    }
    // Chosen, and nobody is known to have it: as evenly as whole tokens allow, whoever gets one more changes.
    assert_eq!(parts(&replicas, 1, 6), [(0, 3), (1, 3)]);
    assert_eq!(parts(&replicas, 1, 1), [(0, 1), (1, 0)]);
    replicas.observe(0, 10, &[routed(1, 1)]);
    assert_eq!(parts(&replicas, 1, 1), [(0, 0), (1, 1)]);
    replicas.observe(0, 10, &[routed(1, 1)]);
    // Both were asked: from here on it counts who has it.
    assert_eq!(parts(&replicas, 1, 7), [(0, 7)], "nobody has it: one of them fetches it");
    replicas.told(has(1, 1, 1, true));
    assert_eq!(parts(&replicas, 1, 7), [(1, 7)], "the replica is there, and its own accelerator gave it up");
    replicas.told(has(0, 1, 1, true));
    assert_eq!(parts(&replicas, 1, 6), [(0, 3), (1, 3)]);
    replicas.told(has(1, 2, 1, false));
    assert_eq!(parts(&replicas, 1, 6), [(0, 6)]);
}

#[test]
fn experts_of_the_lost_go_to_a_copy_then_to_whoever_has_least() {
    let mut replicas = replicas(4, 0);
    let tokens = [5, 5, 30, 20, 10, 10, 4, 4];
    replicas.observe(
        0,
        10,
        &(0..8).map(|expert| routed(expert, tokens[expert as usize])).collect::<Vec<_>>(),
    );
    replicas.told(has(2, 1, 2, true));
    let lost = |device, epoch| Note { device, epoch, news: News::Lost };
    // Expert 2 is at accelerator 2 already; then the last one has least.
    replicas.told(lost(1, 0));
    assert_eq!((parts(&replicas, 2, 3), parts(&replicas, 3, 3)), (vec![(2, 3)], vec![(3, 3)]));
    replicas.told(lost(1, 0));
    assert_eq!(replicas.alive(), 3);
    // What was taken over goes on with the rest when that one is lost too.
    replicas.told(lost(3, 0));
    assert_eq!(
        (parts(&replicas, 3, 3), parts(&replicas, 6, 1), parts(&replicas, 7, 1)),
        (vec![(0, 3)], vec![(0, 1)], vec![(0, 1)])
    );
    let back = Note { device: 1, epoch: 1, news: News::Began };
    replicas.told(back);
    assert_eq!((parts(&replicas, 2, 3), parts(&replicas, 3, 3)), (vec![(1, 3)], vec![(1, 3)]));
    assert_eq!(parts(&replicas, 6, 1), [(0, 1)], "which is still lost");
}

#[test]
fn experts_nobody_has_asked_for_are_shared_out_by_number() {
    let mut replicas = replicas(4, 0);
    replicas.told(Note { device: 0, epoch: 0, news: News::Lost });
    assert_eq!((parts(&replicas, 0, 1), parts(&replicas, 1, 1)), (vec![(1, 1)], vec![(2, 1)]));
}
