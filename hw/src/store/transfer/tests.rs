use super::*;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Dxsm;
use std::os::unix::fs::FileExt;

const BLOCKS: u64 = if cfg!(miri) { 6 } else { 24 };
const SIZE: u64 = BLOCKS * PAGE as u64;

/// A system that interrupts, carries less than asked, and ends requests in any order.
struct Contrary {
    calls: Calls,
    ended: Vec<(usize, io::Result<usize>)>,
    draws: Pcg64Dxsm,
}

#[allow(unsafe_code)]
impl Queue for Contrary {
    unsafe fn start(&mut self, file: &File, mut request: Request) {
        let hindrance = match self.draws.random_range(0..8) {
            0 => Some(io::ErrorKind::Interrupted),
            1 => Some(io::ErrorKind::WouldBlock),
            2..5 if request.len > PAGE => {
                request.len = self.draws.random_range(PAGE..request.len);
                None
            }
            _ => None,
        };
        if let Some(kind) = hindrance {
            return self.ended.push((request.slot, Err(kind.into())));
        }
        // SAFETY: as the caller promises; fewer bytes than promised are touched.
        unsafe { self.calls.start(file, request) };
        self.ended.push(self.calls.finish());
    }

    fn finish(&mut self) -> (usize, io::Result<usize>) {
        let which = self.draws.random_range(0..self.ended.len());
        self.ended.swap_remove(which)
    }
}

fn contrary(seed: u64) -> Engine {
    let draws = Pcg64Dxsm::seed_from_u64(seed);
    let queue = Contrary { calls: Calls::default(), ended: vec![], draws };
    let (depth, piece) = (5, 3 * PAGE);
    Engine { queue: Box::new(queue), bounce: pages::map(depth * piece).unwrap().into(), depth, piece }
}

/// Engines by name; without a ring where the kernel has none, as Miri's.
fn engines(seed: u64) -> Vec<(&'static str, Engine)> {
    let ring = if cfg!(miri) { None } else { Engine::ring(SIZE).ok() };
    let ring = ring.map(|(engine, _)| ("ring", engine));
    let others = [("calls", Engine::calls(SIZE).unwrap()), ("contrary", contrary(seed))];
    others.into_iter().chain(ring).collect()
}

fn noise(len: u64, seed: u64) -> Vec<u8> {
    let mut draws = Pcg64Dxsm::seed_from_u64(seed);
    (0..len).map(|_| draws.random()).collect()
}

fn file_of(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

const DIRECT: Alignment = Alignment { file: PAGE as u64, memory: 512 };
const ANYWHERE: Alignment = Alignment { file: 1, memory: 1 };

fn target(file: &File, alignment: Alignment) -> Target<'_> {
    Target { file, alignment, faults: None }
}

proptest! {
    #[test]
    fn any_range_is_loaded_and_saved_exactly_by_any_engine(
        at in 0..SIZE,
        len in 0..SIZE,
        shift in prop::sample::select(vec![0usize, 512, 1, 700]),
        direct: bool,
        seed: u64,
    ) {
        let len = len.min(SIZE - at);
        let (before, new) = (noise(SIZE, seed), noise(len, seed ^ 1));
        let alignment = if direct { DIRECT } else { ANYWHERE };
        for (name, mut engine) in engines(seed) {
            let file = file_of(&before);
            let mut memory = pages::map(SIZE as usize + 4096).unwrap();
            let memory = &mut memory[shift..][..len as usize];
            engine.load(target(&file, alignment), at, memory).unwrap();
            prop_assert!(memory == &before[at as usize..][..len as usize], "{}", name);

            memory.copy_from_slice(&new);
            engine.save(target(&file, alignment), at, memory).unwrap();
            let mut after = before.clone();
            after[at as usize..][..len as usize].copy_from_slice(&new);
            prop_assert!(contents(&file) == after, "{}: neighbours or bytes are wrong", name);
        }
    }

    #[test]
    fn a_file_that_has_shrunk_is_an_error_wherever_it_ends(
        left in 0..SIZE,
        at in 0..SIZE,
        direct: bool,
        seed: u64,
    ) {
        let alignment = if direct { DIRECT } else { ANYWHERE };
        for (name, mut engine) in engines(seed) {
            let file = file_of(&noise(left, seed));
            let mut memory = vec![0; (SIZE - at) as usize];
            let broken = engine.load(target(&file, alignment), at, &mut memory).unwrap_err();
            let Broken::Ended { at: end } = broken else { panic!("{name}: {broken:?}") };
            prop_assert!(end >= left.min(at - at % alignment.file), "{}: {} of {}", name, end, left);
            // The engine is as good as new.
            let whole = file_of(&noise(SIZE, seed));
            engine.load(target(&whole, alignment), at, &mut memory).unwrap();
            prop_assert!(memory == noise(SIZE, seed)[at as usize..]);
        }
    }
}

#[test]
fn what_the_system_refuses_is_its_error_and_where() {
    let read_only = tempfile::NamedTempFile::new().unwrap();
    read_only.as_file().write_all_at(&noise(SIZE, 1), 0).unwrap();
    let file = File::open(read_only.path()).unwrap();
    for (name, mut engine) in engines(3) {
        let broken = engine.save(target(&file, DIRECT), PAGE as u64 + 7, &[1; 3 * PAGE]).unwrap_err();
        let Broken::System { way: Way::Save, at, source } = broken else { panic!("{name}: {broken:?}") };
        assert_eq!(source.raw_os_error(), Some(libc::EBADF), "{name}");
        assert!(at >= PAGE as u64, "{name}: {at}");
    }
    assert_eq!(contents(&file), noise(SIZE, 1));
}

#[test]
fn transfers_cut_short_by_plan_are_completed() {
    let faults = Faults::new(5, &[(Fault::Short, 2)]);
    faults.arm(true);
    let before = noise(SIZE, 9);
    for (name, mut engine) in engines(11) {
        let file = file_of(&before);
        let target = Target { file: &file, alignment: DIRECT, faults: Some(&faults) };
        let struck = faults.struck(Fault::Short);
        let mut memory = vec![0; SIZE as usize - 200];
        (0..20).for_each(|_| engine.load(target, 100, &mut memory).unwrap());
        assert!(memory == before[100..SIZE as usize - 100], "{name}");
        engine.save(target, 0, &noise(SIZE, 8)).unwrap();
        assert_eq!(contents(&file), noise(SIZE, 8), "{name}");
        assert!(faults.struck(Fault::Short) > struck, "{name}");
    }
}
