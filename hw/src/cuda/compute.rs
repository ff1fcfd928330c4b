//! The accelerator's compute: products of the copies as they are, many experts at once.

use super::blas::Blas;
use super::coder::Coder;
use super::error::CudaError;
use super::gpu::Gpu;
use super::launch::{Launch, Place};
use super::memory::Slab;
use super::products::{Bench, Task, matmul, parts_room, silu_mul, split_bf16, suits_library};
use crate::branch;
use crate::cargo::Cargo;
use crate::content::Contents;
use crate::engine::{ComputeReport, Dense, Done, Job, JobError, Work, Worker};
use policy::BlockId;
use policy::event::{Form, Part};
use policy::format::FormatId;
use policy::model::Matrix;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// Counters of parts: one for each block of rows of each matrix of a launch.
const COUNTERS: u64 = 1 << 14;

/// Vectors begin at multiples of so many numbers.
const ALIGNED: u64 = 8;

/// Does compute commands in order.
pub(super) struct ComputeWorker {
    coder: Coder,
    contents: Arc<Contents>,
    parts: Slab,
    finished: Slab,
    blas: Option<Blas>,
}

/// Something to multiply with: a block's copy, or a matrix beside the blocks.
struct Operand {
    format: FormatId,
    address: u64,
    matrices: Arc<[Matrix]>,
    gated: bool,
    tokens: u64,
}

/// Outputs of one kind, one after another: how many there are, and a task for each by format.
#[derive(Default)]
struct Stage {
    numbers: u64,
    tasks: BTreeMap<FormatId, Vec<Task>>,
}

impl Stage {
    /// Adds the product of matrix `which` of an operand with the vectors at `x`; where its outputs go.
    fn add(&mut self, operand: &Operand, which: usize, x: u64) -> Range<u64> {
        let before = &operand.matrices[..which];
        let Matrix { rows, columns } = operand.matrices[which];
        let begin = self.numbers.next_multiple_of(ALIGNED);
        let end = begin + rows * operand.tokens;
        let task = Task {
            copy: operand.address,
            elements: operand.matrices.iter().map(|matrix| matrix.elements()).sum(),
            first_element: before.iter().map(|matrix| matrix.elements()).sum(),
            first_row: before.iter().map(|matrix| matrix.rows).sum(),
            rows,
            columns,
            tokens: operand.tokens,
            x,
            y: begin,
        };
        if rows > 0 && operand.tokens > 0 {
            self.tasks.entry(operand.format).or_default().push(task);
        }
        self.numbers = end;
        begin..end
    }
}

impl ComputeWorker {
    pub(super) fn new(gpu: &Arc<Gpu>, contents: Arc<Contents>) -> Result<ComputeWorker, CudaError> {
        let finished = Slab::new(gpu, COUNTERS * 4)?;
        finished.save(0, &vec![0; COUNTERS as usize * 4])?;
        let matrices = contents.model().blocks.iter().flat_map(|block| block.matrices.iter());
        // Without blocks, what products there will be is not known.
        let widest = matrices.map(|matrix| matrix.columns).max().unwrap_or(u64::MAX);
        let parts = Slab::new(gpu, parts_room(gpu.processors(), widest) * 4)?;
        Ok(ComputeWorker { coder: Coder::new(gpu, false)?, contents, parts, finished, blas: Blas::new(gpu)? })
    }

    fn compute(&mut self, work: &Work) -> Result<ComputeReport, JobError> {
        let mut kept = Vec::new();
        let result = self.products(work, &mut kept);
        // Whatever was started has ended before its memory is used again.
        self.coder.stream().finish()?;
        kept.into_iter().for_each(|slab| self.coder.give(slab));
        result
    }

    #[allow(unsafe_code)]
    fn products(&mut self, work: &Work, kept: &mut Vec<Slab>) -> Result<ComputeReport, JobError> {
        for reading in work.reads.iter().filter(|_| work.check) {
            let (block, form) = (reading.block, reading.form);
            let cargo = Cargo::Block { block, before: form.format, to: form };
            self.coder.verify(&self.contents, &cargo, &reading.region)?;
        }
        let begun = self.coder.stream().mark()?;
        let operands = self.operands(work, kept)?;
        let expanded = self.coder.stream().mark()?;
        let plan = self.plan(&operands, kept)?;
        let started = self.coder.stream().mark()?;
        // SAFETY: tasks name copies that the work holds, within their sizes; inputs and outputs are of the sizes planned,
        // in memory that `kept` holds until the stream is finished.
        unsafe { self.run(&plan.steps) }?;
        let ended = self.coder.stream().mark()?;
        ended.wait()?;
        let took = expanded.since(&begun)? + ended.since(&started)?;
        let outputs = plan.outputs.iter().take(work.reads.len());
        let digests = outputs.map(|ranges| root_mean_square(ranges, kept)).collect::<Result<_, _>>()?;
        Ok(ComputeReport { layer: work.layer, part: work.part, digests, took })
    }

    fn operands(&mut self, work: &Work, kept: &mut Vec<Slab>) -> Result<Vec<Operand>, JobError> {
        let mut operands = Vec::with_capacity(work.reads.len() + 2);
        for reading in &work.reads {
            let address = self.coder.readable(&reading.region, kept)?;
            let copy = (reading.block, reading.form);
            operands.push(self.operand(copy, address, reading.tokens.into(), kept)?);
        }
        let batch = match work.part {
            Part::Head => work.batch.len() as u64,
            _ => work.batch.iter().map(|slice| u64::from(slice.tokens)).sum(),
        };
        // Attention is the product of the cache with one query.
        for (dense, tokens) in [(&work.dense, batch), (&work.cache, 1)] {
            if let Some(dense) = dense {
                operands.push(self.dense(dense, tokens, kept)?);
            }
        }
        Ok(operands)
    }

    /// A copy as its kernels read it: one that they do not is expanded first.
    fn operand(
        &mut self,
        (block, form): (BlockId, Form),
        address: u64,
        tokens: u64,
        kept: &mut Vec<Slab>,
    ) -> Result<Operand, JobError> {
        let data = self.contents.block(block);
        let (matrices, gated) = (data.matrices.clone(), branch::is_gated(data));
        let operand =
            |format, address| Operand { format, address, matrices: matrices.clone(), gated, tokens };
        let Some(native) = form.format.get().lossless_of.and_then(FormatId::named) else {
            return Ok(operand(form.format, address));
        };
        let expanded = self.coder.take(data.bytes(native).0)?;
        let to = Place { format: native, address: expanded.start() };
        kept.push(expanded);
        if !self.coder.recode(Place { format: form.format, address }, to, &matrices)? {
            return Err(CudaError::Corrupt { block: block.0 }.into());
        }
        Ok(operand(native, to.address))
    }

    fn dense(&mut self, dense: &Dense, tokens: u64, kept: &mut Vec<Slab>) -> Result<Operand, JobError> {
        let address = self.coder.readable(&dense.region, kept)?;
        let matrix = Matrix { rows: dense.rows, columns: dense.columns };
        Ok(Operand { format: FormatId::BF16, address, matrices: [matrix].into(), gated: false, tokens })
    }

    /// Lays out inputs and outputs, and the launches from one to the other: gates, ups and everything that is a plain
    /// product first, then what is between an expert's products, then downs.
    fn plan(&mut self, operands: &[Operand], kept: &mut Vec<Slab>) -> Result<Plan, JobError> {
        let inputs = Inputs::new(operands);
        let (mut first, mut second) = (Stage::default(), Stage::default());
        let gated = || operands.iter().enumerate().filter(|(_, operand)| operand.gated);
        let columns = |operand: &Operand, which: usize| operand.matrices[which].columns;
        let mut gates = BTreeMap::new();
        for (index, operand) in gated() {
            gates.insert(index, first.add(operand, 0, inputs.at(columns(operand, 0))));
        }
        // Ups lie as gates do, so that one launch pairs them all.
        first.numbers = first.numbers.next_multiple_of(ALIGNED);
        let ups = first.numbers;
        for (_, operand) in gated() {
            first.add(operand, 1, inputs.at(columns(operand, 1)));
        }
        let mut outputs = Vec::with_capacity(operands.len());
        for (index, operand) in operands.iter().enumerate() {
            outputs.push(match gates.get(&index) {
                Some(gate) => vec![(1, second.add(operand, 2, gate.start))],
                None => {
                    let all = 0..operand.matrices.len();
                    all.map(|which| (0, first.add(operand, which, inputs.at(columns(operand, which)))))
                        .collect()
                }
            });
        }
        let x = self.numbers(inputs.total, kept)?;
        let (y, inner, z) = (
            self.numbers(first.numbers, kept)?,
            self.numbers(ups, kept)?,
            self.numbers(second.numbers, kept)?,
        );
        kept[x].save(0, bytemuck::cast_slice(&inputs.numbers(&self.contents)))?;
        let address = |slab: usize| kept[slab].start();
        let (x_at, y_at, inner_at, z_at) = (address(x), address(y), address(inner), address(z));
        let mut steps = self.steps(&first, (x_at, inputs.total), y_at, kept)?;
        if ups > 0 {
            steps.push(Step::Launch(silu_mul(y_at, y_at + ups * 4, inner_at, ups).map_err(CudaError::from)?));
        }
        steps.extend(self.steps(&second, (inner_at, ups), z_at, kept)?);
        let place = |(stage, range)| Output { slab: if stage == 0 { y } else { z }, range };
        let outputs = outputs.into_iter().map(|ranges| ranges.into_iter().map(place).collect()).collect();
        Ok(Plan { steps, outputs })
    }

    /// Memory for numbers, as its place in `kept`.
    fn numbers(&mut self, count: u64, kept: &mut Vec<Slab>) -> Result<usize, CudaError> {
        kept.push(self.coder.take(count * 4)?);
        Ok(kept.len() - 1)
    }

    /// What a stage does, from `numbers` inputs at `x` to outputs at `y`.
    fn steps(
        &mut self,
        stage: &Stage,
        (x, numbers): (u64, u64),
        y: u64,
        kept: &mut Vec<Slab>,
    ) -> Result<Vec<Step>, CudaError> {
        let bench = Bench {
            x,
            y,
            numbers: stage.numbers,
            parts: self.parts.start(),
            parts_room: self.parts.len() / 4,
            finished: self.finished.start(),
            counters: COUNTERS,
            processors: self.coder.stream().gpu().processors(),
        };
        let mut steps = Vec::with_capacity(stage.tasks.len());
        let mut library = Vec::new();
        for (format, tasks) in &stage.tasks {
            let suits = |task: &&Task| self.blas.is_some() && suits_library(*format, task);
            let (theirs, ours): (Vec<&Task>, Vec<&Task>) = tasks.iter().partition(suits);
            library.extend(theirs.into_iter().copied());
            if ours.is_empty() {
                continue;
            }
            let ours: Vec<Task> = ours.into_iter().copied().collect();
            let bytes: &[u8] = bytemuck::cast_slice(&ours);
            let slab = self.coder.take(bytes.len() as u64)?;
            slab.save(0, bytes)?;
            steps.push(Step::Launch(matmul(*format, &ours, slab.start(), &bench)?));
            kept.push(slab);
        }
        if !library.is_empty() {
            let [high, low] = [self.coder.take(numbers * 2)?, self.coder.take(numbers * 2)?];
            steps.push(Step::Launch(split_bf16(x, high.start(), low.start(), numbers)?));
            for task in library {
                let product = |x, adds| Step::Product { task, x, y, adds };
                steps.extend([product(high.start(), false), product(low.start(), true)]);
            }
            kept.extend([high, low]);
        }
        Ok(steps)
    }

    /// Starts what was planned.
    ///
    /// # Safety
    /// As [`super::gpu::Stream::launch`].
    #[allow(unsafe_code)]
    unsafe fn run(&mut self, steps: &[Step]) -> Result<(), CudaError> {
        for step in steps {
            // SAFETY: the caller's promise.
            match (step, &mut self.blas) {
                (Step::Launch(launch), _) => unsafe { self.coder.stream().launch(launch) }?,
                (Step::Product { task, x, y, adds }, Some(blas)) => {
                    unsafe { blas.product(self.coder.stream(), task, (*x, *y), *adds) }?
                }
                (Step::Product { .. }, None) => {}
            }
        }
        Ok(())
    }
}

/// Something for the device to do.
enum Step {
    /// One of our kernels.
    Launch(Launch),
    /// A product of the library's, from bf16 at `x`; it may add to what is there.
    Product { task: Task, x: u64, y: u64, adds: bool },
}

/// What a compute command launches, and where the outputs of each operand are.
struct Plan {
    steps: Vec<Step>,
    outputs: Vec<Vec<Output>>,
}

/// Numbers of a slab, by its place among those that a command keeps.
struct Output {
    slab: usize,
    range: Range<u64>,
}

/// The vectors that matrices are multiplied with: for every number of columns, as many as there are tokens.
struct Inputs {
    places: BTreeMap<u64, (u64, u64)>,
    total: u64,
}

impl Inputs {
    fn new(operands: &[Operand]) -> Inputs {
        let mut tokens: BTreeMap<u64, u64> = BTreeMap::new();
        for operand in operands {
            for matrix in &operand.matrices[..] {
                let most = tokens.entry(matrix.columns).or_default();
                *most = operand.tokens.max(*most);
            }
        }
        let mut total = 0u64;
        let place = |(columns, tokens)| {
            let begin = total.next_multiple_of(ALIGNED);
            total = begin + columns * tokens;
            (columns, (begin, tokens))
        };
        let places = tokens.into_iter().map(place).collect();
        Inputs { places, total }
    }

    fn at(&self, columns: u64) -> u64 {
        self.places.get(&columns).map_or(0, |(begin, _)| *begin)
    }

    fn numbers(&self, contents: &Contents) -> Vec<f32> {
        let most = self.places.iter().map(|(columns, (_, tokens))| columns * tokens).max();
        let input = contents.input(most.unwrap_or(0) as usize);
        let mut numbers = vec![0.0; self.total as usize];
        for (columns, (begin, tokens)) in &self.places {
            let count = (columns * tokens) as usize;
            numbers[*begin as usize..][..count].copy_from_slice(&input[..count]);
        }
        numbers
    }
}

fn root_mean_square(outputs: &[Output], kept: &[Slab]) -> Result<f32, CudaError> {
    let (mut squares, mut count) = (0.0f64, 0);
    for Output { slab, range } in outputs {
        let mut numbers = vec![0.0f32; (range.end - range.start) as usize];
        kept[*slab].load(range.start * 4, bytemuck::cast_slice_mut(&mut numbers))?;
        squares += numbers.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>();
        count += numbers.len();
    }
    Ok((squares / count.max(1) as f64).sqrt() as f32)
}

impl Worker for ComputeWorker {
    fn run(&mut self, jobs: &Receiver<Job>, report: &mut dyn FnMut(Done)) {
        for job in jobs {
            if let Job::Compute(work) = job {
                report(Done::Compute(work.part, self.compute(&work)));
            }
        }
    }
}
