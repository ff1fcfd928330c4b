//! A device of CUDA's driver, which is loaded at run time: its streams, events and kernels.

use super::error::{CudaError, Doing};
use super::launch::{Launch, THREADS};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaFunction, CudaModule, CudaStream, LaunchConfig, PushKernelArg, result, sys,
};
use cudarc::nvrtc::{self, CompileOptions, Ptx};
use policy::units::Nanos;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The kernels, compiled by `kernels/build.sh`.
const FATBIN: &[u8] = include_bytes!("../../kernels/hotset.fatbin");
/// The first driver with every call that cudarc makes of it for us: 12.8.
const DRIVER: i32 = 12_080;

/// A device that has been opened.
pub struct Gpu {
    ordinal: u32,
    context: Arc<CudaContext>,
    module: Arc<CudaModule>,
    functions: Mutex<BTreeMap<String, CudaFunction>>,
    name: String,
    processors: u64,
}

/// Work that is done in order. Copies have the higher priority where `urgent`.
pub struct Stream {
    gpu: Arc<Gpu>,
    stream: Arc<CudaStream>,
}

/// A point in a stream's work, with the time at which it is reached.
pub struct Mark(CudaEvent);

impl Gpu {
    /// Opens device number `ordinal`. Where there is no driver, no such device, or one too old, that is the error.
    #[allow(unsafe_code)]
    pub fn open(ordinal: u32) -> Result<Arc<Gpu>, CudaError> {
        // SAFETY: it only tries to load the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        let mut found = 0;
        // SAFETY: the driver writes one number there, and needs no initialisation for this call.
        unsafe { sys::cuDriverGetVersion(&mut found) }.result().doing("asking for the driver's version")?;
        if found < DRIVER {
            return Err(CudaError::OldDriver { found, needed: DRIVER });
        }
        result::init().doing("starting the driver")?;
        let there = CudaContext::device_count().doing("counting devices")?;
        if i64::from(ordinal) >= i64::from(there) {
            return Err(CudaError::NoDevice { asked: ordinal, there });
        }
        let context = CudaContext::new(ordinal as usize).doing("opening the device")?;
        // SAFETY: we order streams ourselves, by events and by waiting for them.
        unsafe { context.disable_event_tracking() };
        let name = context.name().doing("asking for the device's name")?;
        let capability = context.compute_capability().doing("asking for the compute capability")?;
        if capability < (8, 0) {
            return Err(CudaError::OldDevice { name, found: capability });
        }
        let count = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let processors = context.attribute(count).doing("counting multiprocessors")?.max(1) as u64;
        let module = context.load_module(kernels(capability)?).doing("loading the kernels")?;
        Ok(Arc::new(Gpu { ordinal, context, module, functions: Mutex::default(), name, processors }))
    }

    /// Its number.
    pub fn ordinal(&self) -> u32 {
        self.ordinal
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Multiprocessors.
    pub fn processors(&self) -> u64 {
        self.processors
    }

    /// Bytes of its memory that are free.
    pub fn free_memory(&self) -> Result<u64, CudaError> {
        self.bind()?;
        result::mem_get_info().map(|(free, _)| free as u64).doing("asking for free memory")
    }

    /// A stream of its own. One that is `urgent` goes first where two could run.
    pub fn stream(self: &Arc<Gpu>, urgent: bool) -> Result<Stream, CudaError> {
        self.bind()?;
        let stream = self.context.new_stream_with_priority(if urgent { -1 } else { 0 });
        Ok(Stream { gpu: self.clone(), stream: stream.doing("making a stream")? })
    }

    /// Calls of the driver's that name no context mean this thread's.
    pub(super) fn bind(&self) -> Result<(), CudaError> {
        self.context.bind_to_thread().doing("using the device")
    }

    /// Gives this device access to another one's memory. False where the machine has no way there: copies between the two
    /// then go through the host's memory, which the driver sees to.
    #[allow(unsafe_code)]
    pub fn reach(&self, other: &Gpu) -> Result<bool, CudaError> {
        let mut can = 0;
        let (ours, theirs) = (self.context.cu_device(), other.context.cu_device());
        // SAFETY: the driver writes one number there.
        unsafe { sys::cuDeviceCanAccessPeer(&raw mut can, ours, theirs) }
            .result()
            .doing("asking whether devices reach each other")?;
        if can == 0 {
            return Ok(false);
        }
        self.bind()?;
        // SAFETY: both contexts live as long as their devices are open.
        match unsafe { sys::cuCtxEnablePeerAccess(other.context.cu_ctx(), 0) } {
            sys::CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED => Ok(true),
            sys::CUresult::CUDA_ERROR_PEER_ACCESS_UNSUPPORTED | sys::CUresult::CUDA_ERROR_TOO_MANY_PEERS => {
                Ok(false)
            }
            code => code.result().map(|()| true).doing("reaching another device's memory"),
        }
    }

    fn function(&self, kernel: &str) -> Result<CudaFunction, CudaError> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(kernel) {
            return Ok(function.clone());
        }
        let function = self.module.load_function(kernel).doing("looking for a kernel")?;
        functions.insert(kernel.into(), function.clone());
        Ok(function)
    }
}

/// The kernels within, or those of the folder that `HOTSET_KERNELS` names, compiled now.
#[allow(unsafe_code)]
fn kernels((major, minor): (i32, i32)) -> Result<Ptx, CudaError> {
    let Some(folder) = std::env::var_os("HOTSET_KERNELS").map(PathBuf::from) else {
        return Ok(Ptx::from_binary(FATBIN.to_vec()));
    };
    let failed = |why: String| CudaError::Kernels { folder: folder.clone(), why };
    // SAFETY: it only tries to load the library.
    if !unsafe { nvrtc::sys::is_culib_present() } {
        return Err(failed("libnvrtc is not on the library path".into()));
    }
    let source =
        std::fs::read_to_string(folder.join("hotset.cu")).map_err(|error| failed(error.to_string()))?;
    let mut options = compile_options(&folder);
    options.options.push(format!("--gpu-architecture=compute_{major}{minor}"));
    nvrtc::compile_ptx_with_opts(source, options).map_err(|error| failed(format!("{error:?}")))
}

/// What NVRTC must be told so that kernels round as the host does.
pub fn compile_options(folder: &Path) -> CompileOptions {
    CompileOptions {
        include_paths: vec![folder.display().to_string()],
        options: vec!["--std=c++17".into()],
        fmad: Some(false),
        ..CompileOptions::default()
    }
}

impl Stream {
    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The driver's name for it.
    pub(super) fn handle(&self) -> sys::CUstream {
        self.stream.cu_stream()
    }

    /// Marks this point of the work.
    pub fn mark(&self) -> Result<Mark, CudaError> {
        let timed = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        self.stream.record_event(timed).map(Mark).doing("recording an event")
    }

    /// Waits until all work is done.
    pub fn finish(&self) -> Result<(), CudaError> {
        self.stream.synchronize().doing("waiting for a stream")
    }

    /// Starts a launch.
    ///
    /// # Safety
    /// The addresses among the arguments are what the kernel says they are, and stay so until the work is done.
    #[allow(unsafe_code)]
    pub unsafe fn launch(&self, launch: &Launch) -> Result<(), CudaError> {
        let function = self.gpu.function(&launch.kernel)?;
        let mut call = self.stream.launch_builder(&function);
        for argument in &launch.arguments {
            call.arg(argument);
        }
        let [x, y, z] = launch.grid;
        let shape = LaunchConfig { grid_dim: (x, y, z), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the kernel takes words, as many as the plan has; the caller answers for what they mean.
        unsafe { call.launch(shape) }.map(drop).doing("launching a kernel")
    }

    /// Starts a copy from the host's memory to the device's.
    ///
    /// # Safety
    /// `from` and `to` are `len` bytes, and until the work is done nobody writes the former or uses the latter.
    #[allow(unsafe_code)]
    pub unsafe fn upload(&self, to: u64, from: *const u8, len: u64) -> Result<(), CudaError> {
        self.gpu.bind()?;
        // SAFETY: the caller answers for both places.
        unsafe {
            let bytes = std::slice::from_raw_parts(from, len as usize);
            result::memcpy_htod_async(to, bytes, self.stream.cu_stream())
        }
        .doing("copying to the device")
    }

    /// Starts a copy from the device's memory to the host's.
    ///
    /// # Safety
    /// As [`Stream::upload`].
    #[allow(unsafe_code)]
    pub unsafe fn download(&self, to: *mut u8, from: u64, len: u64) -> Result<(), CudaError> {
        self.gpu.bind()?;
        // SAFETY: the caller answers for both places.
        unsafe {
            let bytes = std::slice::from_raw_parts_mut(to, len as usize);
            result::memcpy_dtoh_async(bytes, from, self.stream.cu_stream())
        }
        .doing("copying from the device")
    }

    /// Starts a copy between the memories of two devices, one of which is this stream's; or within its own.
    ///
    /// # Safety
    /// As [`Stream::upload`].
    #[allow(unsafe_code)]
    pub unsafe fn copy_across(
        &self,
        (to, target): (&Gpu, u64),
        (from, source): (&Gpu, u64),
        len: u64,
    ) -> Result<(), CudaError> {
        if to.ordinal == from.ordinal {
            // SAFETY: the caller's promise.
            return unsafe { self.copy(target, source, len) };
        }
        self.gpu.bind()?;
        let (to, from) = (to.context.cu_ctx(), from.context.cu_ctx());
        // SAFETY: the caller answers for both places.
        unsafe { result::memcpy_peer_async(to, target, from, source, len as usize, self.stream.cu_stream()) }
            .doing("copying between devices")
    }

    /// Starts a copy within the device's memory.
    ///
    /// # Safety
    /// As [`Stream::upload`].
    #[allow(unsafe_code)]
    pub unsafe fn copy(&self, to: u64, from: u64, len: u64) -> Result<(), CudaError> {
        self.gpu.bind()?;
        // SAFETY: the caller answers for both places.
        unsafe { result::memcpy_dtod_async(to, from, len as usize, self.stream.cu_stream()) }
            .doing("copying within the device")
    }
}

impl Mark {
    /// Waits until it is reached.
    pub fn wait(&self) -> Result<(), CudaError> {
        self.0.synchronize().doing("waiting for an event")
    }

    /// The device's time from an earlier mark to this one; both have been reached.
    pub fn since(&self, earlier: &Mark) -> Result<Nanos, CudaError> {
        let milliseconds = earlier.0.elapsed_ms(&self.0).doing("reading an event's time")?;
        Ok(Nanos((f64::from(milliseconds.max(0.0)) * 1e6).round() as u64))
    }
}
