//! cuBLASLt, where it is there, for full precision and more tokens than decoding has.

use super::error::CudaError;
use super::gpu::{Gpu, Stream};
use super::memory::Slab;
use super::products::Task;
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{self, cublasLtMatmulDescAttributes_t as DescAttribute};
use cudarc::cublaslt::sys::{cublasLtMatmulPreferenceAttributes_t as Preference, cudaDataType};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

/// The most that a product may take beside its operands, which NVIDIA advises for Hopper: 32 MiB.
const WORKSPACE: u64 = 32 << 20;
/// `CUBLAS_OP_T`.
const TRANSPOSED: i32 = 1;
/// What operands begin at multiples of, at least.
const ALIGNMENT: u32 = 16;

/// The library, for one stream.
pub(super) struct Blas {
    handle: sys::cublasLtHandle_t,
    /// As much as any product so far takes.
    workspace: Option<Slab>,
    shapes: BTreeMap<(u64, u64, u64), Shape>,
}

// SAFETY: the handles name memory of the library's that any thread may use, one at a time.
#[allow(unsafe_code)]
unsafe impl Send for Blas {}

/// How products of one shape are done.
struct Shape {
    description: sys::cublasLtMatmulDesc_t,
    /// Of the weights, the inputs and the outputs.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
    /// Bytes that it takes beside the operands.
    workspace: u64,
}

fn failed(source: CublasError) -> CudaError {
    CudaError::Blas { source }
}

impl Blas {
    /// The library, if it can be loaded.
    #[allow(unsafe_code)]
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Option<Blas>, CudaError> {
        // SAFETY: it only tries to load the library.
        if !unsafe { sys::is_culib_present() } {
            return Ok(None);
        }
        gpu.bind()?;
        let handle = result::create_handle().map_err(failed)?;
        Ok(Some(Blas { handle, workspace: None, shapes: BTreeMap::new() }))
    }

    /// Starts y = W x, or y += W x where `adds`, for a task on bf16 weights. `x` and `y` are the addresses of the launch's
    /// bf16 inputs and f32 outputs.
    ///
    /// # Safety
    /// As [`Stream::launch`].
    #[allow(unsafe_code)]
    pub(super) unsafe fn product(
        &mut self,
        stream: &Stream,
        task: &Task,
        (x, y): (u64, u64),
        adds: bool,
    ) -> Result<(), CudaError> {
        stream.gpu().bind()?;
        let key = (task.rows, task.columns, task.tokens);
        if !self.shapes.contains_key(&key) {
            let shape = Shape::new(self.handle, key).map_err(failed)?;
            if self.workspace.as_ref().map_or(0, Slab::len) < shape.workspace {
                stream.finish()?;
                self.workspace = Some(Slab::new(stream.gpu(), shape.workspace)?);
            }
            self.shapes.insert(key, shape);
        }
        let Some(Shape { description, layouts: [weights, inputs, outputs], algorithm, workspace }) =
            self.shapes.get(&key)
        else {
            return Ok(());
        };
        let room = self.workspace.as_ref().map_or(0, Slab::start);
        let (one, beta) = (1.0f32, if adds { 1.0f32 } else { 0.0 });
        let weights_at = task.copy + task.first_element * 2;
        let (x, y) = (x + task.x * 2, y + task.y * 4);
        // SAFETY: descriptions and layouts live as long as `self`; the caller answers for the addresses.
        unsafe {
            result::matmul(
                self.handle,
                *description,
                (&raw const one).cast(),
                (&raw const beta).cast(),
                address(weights_at),
                *weights,
                address(x),
                *inputs,
                address(y),
                *outputs,
                address(y).cast_mut(),
                *outputs,
                algorithm,
                address(room).cast_mut(),
                *workspace as usize,
                stream.handle().cast(),
            )
        }
        .map_err(failed)
    }
}

/// An address of the device's, which means nothing here.
fn address(at: u64) -> *const c_void {
    std::ptr::without_provenance(at as usize)
}

impl Shape {
    /// The library is column by column: W is its transpose there, x and y are as they are.
    #[allow(unsafe_code)]
    fn new(
        handle: sys::cublasLtHandle_t,
        (rows, columns, tokens): (u64, u64, u64),
    ) -> Result<Shape, CublasError> {
        let (bf16, f32) = (cudaDataType::CUDA_R_16BF, cudaDataType::CUDA_R_32F);
        let description = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, f32)?;
        let layouts = [
            result::create_matrix_layout(bf16, columns, rows, columns as i64)?,
            result::create_matrix_layout(bf16, columns, tokens, columns as i64)?,
            result::create_matrix_layout(f32, rows, tokens, rows as i64)?,
        ];
        let preference = result::create_matmul_pref()?;
        let (transposed, alignment) = (TRANSPOSED, ALIGNMENT);
        let workspace = WORKSPACE as usize;
        let alignments = [
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ];
        let [weights, inputs, outputs] = layouts;
        // SAFETY: everything named was made above; attributes are read before the calls return, at their sizes.
        let chosen = unsafe {
            let transpose = DescAttribute::CUBLASLT_MATMUL_DESC_TRANSA;
            result::set_matmul_desc_attribute(description, transpose, (&raw const transposed).cast(), 4)?;
            let room = Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
            result::set_matmul_pref_attribute(preference, room, (&raw const workspace).cast(), 8)?;
            for operand in alignments {
                result::set_matmul_pref_attribute(preference, operand, (&raw const alignment).cast(), 4)?;
            }
            let chosen = result::get_matmul_algo_heuristic(
                handle,
                description,
                weights,
                inputs,
                outputs,
                outputs,
                preference,
            );
            result::destroy_matmul_pref(preference)?;
            chosen?
        };
        let workspace = chosen.workspaceSize as u64;
        Ok(Shape { description, layouts, algorithm: chosen.algo, workspace })
    }
}

impl Drop for Shape {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: they are ours, and no product waits for them: the stream has been finished.
        unsafe {
            let _ = result::destroy_matmul_desc(self.description);
            for layout in self.layouts {
                let _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

impl Drop for Blas {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        self.shapes.clear();
        // SAFETY: it is ours.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}
