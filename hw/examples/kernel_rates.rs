//! How fast the kernels are on a device, beside its own copies: one JSON document.
//!
//! `kernel_rates [DEVICE] [ROWS] [COLUMNS] [BLOCKS]`: device number, and so many blocks of one matrix of rows by columns.
//! By default 32 of 5760 by 2880, which together are larger than any cache in every format. A rate is bytes of the copies
//! read and written over the median time of some rounds, each of them all blocks.

use hw::codec::coded;
use hw::cuda::error::CudaError;
use hw::cuda::gpu::{Gpu, Stream};
use hw::cuda::launch::{Launch, Place, Status, checksum, recode};
use hw::cuda::memory::Slab;
use hw::cuda::products::{Bench, Task, matmul};
use policy::FormatId;
use policy::model::Matrix;
use serde_json::{Value, json};
use std::sync::Arc;

const TOKENS: [u64; 6] = [1, 2, 4, 8, 16, 32];
const ROUNDS: usize = 15;
const PARTS_ROOM: u64 = 16 << 20;
const COUNTERS: u64 = 1 << 16;

/// Blocks of one matrix each, in bf16 and in the format being measured.
struct Blocks {
    gpu: Arc<Gpu>,
    stream: Stream,
    status: Slab,
    matrix: Matrix,
    count: u64,
    native: Slab,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let mut next = |otherwise| arguments.next().unwrap_or(Ok(otherwise));
    let (device, rows, columns, count) = (next(0)?, next(5760)?, next(2880)?, next(32)?);
    let blocks = Blocks::new(u32::try_from(device)?, Matrix { rows, columns }, count)?;
    let mut rates = vec![blocks.device_copy()?];
    for format in coded() {
        rates.extend(blocks.rates(format)?);
    }
    let document = json!({ "device": blocks.gpu.name(), "rows": rows, "columns": columns, "blocks": count, "rates": rates });
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}

/// Bytes of a copy, and the distance from one to the next.
fn sizes(format: FormatId, matrix: Matrix) -> (u64, u64) {
    let bytes = format.bytes(matrix.elements(), matrix.rows).0;
    (bytes, bytes.next_multiple_of(256))
}

impl Blocks {
    fn new(device: u32, matrix: Matrix, count: u64) -> Result<Blocks, CudaError> {
        let gpu = Gpu::open(device)?;
        let (bytes, step) = sizes(FormatId::BF16, matrix);
        let native = Slab::new(&gpu, step * count)?;
        // Weights of one size with a sign and a mantissa from a multiplication, and exponents as a normal distribution has.
        let numbers = (0..bytes / 2).map(|at| {
            let draw = (at + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let exponent = 121 - (draw >> 32 | 1 << 7).trailing_zeros().min(6);
            (draw >> 48 & 0x807f) as u16 | (exponent as u16) << 7
        });
        let pattern: Vec<u8> = numbers.flat_map(u16::to_le_bytes).collect();
        for block in 0..count {
            native.save(block * step, &pattern)?;
        }
        let status = Slab::new(&gpu, size_of::<Status>() as u64)?;
        status.save(0, bytemuck::bytes_of(&Status::FRESH))?;
        Ok(Blocks { stream: gpu.stream(false)?, gpu, status, matrix, count, native })
    }

    /// The median time of a round, in seconds, as a rate of `bytes`.
    fn timed(
        &self,
        what: &str,
        format: &str,
        tokens: u64,
        bytes: u64,
        round: &dyn Fn() -> Result<(), CudaError>,
    ) -> Result<Value, CudaError> {
        let mut seconds = Vec::with_capacity(ROUNDS);
        for _ in 0..=ROUNDS {
            let begun = self.stream.mark()?;
            round()?;
            let ended = self.stream.mark()?;
            ended.wait()?;
            seconds.push(ended.since(&begun)?.0 as f64 / 1e9);
        }
        // The first round loads the kernel.
        seconds.remove(0);
        seconds.sort_by(f64::total_cmp);
        let (least, median) = (seconds[0], seconds[ROUNDS / 2]);
        Ok(json!({
            "what": what, "format": format, "tokens": tokens, "bytes": bytes, "median_us": median * 1e6,
            "least_us": least * 1e6, "gb_per_s": bytes as f64 / median / 1e9,
        }))
    }

    #[allow(unsafe_code)]
    fn run(&self, launches: &[Launch]) -> Result<(), CudaError> {
        // SAFETY: the launches are planned on slabs that outlive the wait in `timed`, at the sizes of their formats.
        launches.iter().try_for_each(|launch| unsafe { self.stream.launch(launch) })
    }

    /// What the device's memory does: a copy within it.
    #[allow(unsafe_code)]
    fn device_copy(&self) -> Result<Value, CudaError> {
        let (from, len) = (self.native.start(), self.native.len());
        let to = Slab::new(&self.gpu, len)?;
        self.timed("device copy", "bf16", 0, 2 * len, &|| {
            // SAFETY: two slabs of the same size.
            unsafe { self.stream.copy(to.start(), from, len) }
        })
    }

    fn rates(&self, format: FormatId) -> Result<Vec<Value>, CudaError> {
        let name = format.name();
        let (bytes, step) = sizes(format, self.matrix);
        let (native_bytes, native_step) = sizes(FormatId::BF16, self.matrix);
        let coded = Slab::new(&self.gpu, step * self.count)?;
        let back = Slab::new(&self.gpu, native_step)?;
        let native =
            |block| Place { format: FormatId::BF16, address: self.native.start() + block * native_step };
        let copy = |block| Place { format, address: coded.start() + block * step };
        let mut rates = Vec::new();
        let all = |plan: &dyn Fn(u64) -> Result<Vec<Launch>, CudaError>| -> Result<Vec<Launch>, CudaError> {
            Ok((0..self.count).map(plan).collect::<Result<Vec<_>, _>>()?.concat())
        };
        let recoded = |from, to| Ok(recode(from, to, &[self.matrix], 0, self.status.start())?);
        if format == FormatId::BF16 {
            coded.save(0, &self.whole_native()?)?;
        } else {
            let encode = all(&|block| recoded(native(block), copy(block)))?;
            let decode = all(&|block| recoded(copy(block), Place { address: back.start(), ..native(0) }))?;
            let moved = self.count * (bytes + native_bytes);
            rates.push(self.timed("encode", name, 0, moved, &|| self.run(&encode))?);
            rates.push(self.timed("decode", name, 0, moved, &|| self.run(&decode))?);
        }
        let sums = all(&|block| Ok(vec![checksum(copy(block).address, bytes, self.status.start())?]))?;
        rates.push(self.timed("checksum", name, 0, self.count * bytes, &|| self.run(&sums))?);
        if format.get().direct {
            for tokens in TOKENS {
                rates.push(self.products(format, coded.start(), tokens)?);
            }
        }
        Ok(rates)
    }

    fn whole_native(&self) -> Result<Vec<u8>, CudaError> {
        let mut bytes = vec![0; self.native.len() as usize];
        self.native.load(0, &mut bytes)?;
        Ok(bytes)
    }

    /// All blocks times `tokens` vectors each, in one launch.
    fn products(&self, format: FormatId, first: u64, tokens: u64) -> Result<Value, CudaError> {
        let (Matrix { rows, columns }, (bytes, step)) = (self.matrix, sizes(format, self.matrix));
        let task = |block| Task {
            copy: first + block * step,
            elements: self.matrix.elements(),
            first_element: 0,
            first_row: 0,
            rows,
            columns,
            tokens,
            x: 0,
            y: block * rows * tokens,
        };
        let tasks: Vec<Task> = (0..self.count).map(task).collect();
        let numbers = self.count * rows * tokens;
        let slab = |bytes: u64| Slab::new(&self.gpu, bytes);
        let (x, y, parts, finished) =
            (slab(columns * tokens * 4)?, slab(numbers * 4)?, slab(PARTS_ROOM * 4)?, slab(COUNTERS * 4)?);
        let inputs: Vec<f32> = (0..columns * tokens).map(|at| (at % 17) as f32 / 16.0 - 0.5).collect();
        x.save(0, bytemuck::cast_slice(&inputs))?;
        finished.save(0, &vec![0; COUNTERS as usize * 4])?;
        let tasks_at = slab(size_of_val(&tasks[..]) as u64)?;
        tasks_at.save(0, bytemuck::cast_slice(&tasks))?;
        let bench = Bench {
            x: x.start(),
            y: y.start(),
            numbers,
            parts: parts.start(),
            parts_room: PARTS_ROOM,
            finished: finished.start(),
            counters: COUNTERS,
            processors: self.gpu.processors(),
        };
        let launch = matmul(format, &tasks, tasks_at.start(), &bench)?;
        self.timed("product", format.name(), tokens, self.count * bytes, &|| {
            self.run(std::slice::from_ref(&launch))
        })
    }
}
