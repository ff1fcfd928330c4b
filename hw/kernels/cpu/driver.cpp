// A test double of CUDA's driver: the calls that Hotset makes of libcuda, carried out by the CPU.
//
// It is stricter than a device. Work on a stream is not done when it is submitted but when somebody waits for it, so a
// buffer that is used again too early, or a wait that is missing, gives wrong bytes. Device memory cannot be read or
// written by the host. A copy or kernel outside of what was allocated ends the context, as it does on a device. Calls
// can be made to fail. Times are those of the CPU and mean nothing.
#include <sys/mman.h>

#include <chrono>
#include <deque>

#include "library.cpp"

namespace {

enum { OutOfMemory = 2, NoDevice = 101, BadImage = 200, NotFound = 500, NotReady = 600, BadAddress = 700 };

std::recursive_mutex lock;
typedef std::lock_guard<std::recursive_mutex> Lock;

struct Work {
    std::function<int()> run;
    bool mark;
};
struct Stream {
    std::deque<Work> work;
};
struct Event {
    Stream* stream = nullptr;
    u64 recorded = 0, reached = 0;
    double milliseconds = 0;
};

std::map<u64, u64> allocations;
std::map<std::string, std::pair<int, int>> planned;
u64 capacity = 1ull << 30;
int lost = 0;
thread_local void* current = nullptr;

// The device's memory, open to the CPU for as long as it does the device's work.
struct Opened {
    Opened() { protect(PROT_READ | PROT_WRITE); }
    ~Opened() { protect(PROT_NONE); }
    static void protect(int how) {
        for (auto& [start, bytes] : allocations) mprotect((void*)start, bytes, how);
    }
};

// What a call is to return: an error once something has failed for good, or one that a test has planned.
int verdict(const char* call) {
    if (lost != 0) return lost;
    auto plan = planned.find(call);
    if (plan == planned.end() || --plan->second.first > 0) return 0;
    int code = plan->second.second;
    planned.erase(plan);
    if (code >= BadAddress) lost = code;
    return code;
}

bool allocated(u64 at, u64 bytes) {
    auto after = allocations.upper_bound(at);
    if (after == allocations.begin()) return bytes == 0;
    auto [start, size] = *std::prev(after);
    return at + bytes <= start + size;
}

void run_one(Stream* stream) {
    if (stream->work.empty()) return;
    Work work = std::move(stream->work.front());
    stream->work.pop_front();
    // A context that is lost does nothing more, but marks are passed.
    if (lost != 0 && !work.mark) return;
    int code = work.run();
    if (code != 0 && lost == 0) lost = code;
}

void finish(Stream* stream) {
    while (!stream->work.empty()) run_one(stream);
}

std::vector<Stream*> streams;
void finish_all() {
    for (Stream* stream : streams) finish(stream);
}

int submit(void* stream, std::function<int()> run, bool mark = false) {
    ((Stream*)stream)->work.push_back({std::move(run), mark});
    return 0;
}

}  // namespace

// The body of a call: one at a time, and as planned.
#define CALL(name, ...)           \
    extern "C" int name(__VA_ARGS__) { \
        Lock guard(lock);         \
        if (int code = verdict(#name)) return code;
#define END \
    return 0; \
    }

// Has the `nth` call from now of a function fail with a code; from 700 on, everything after it too.
extern "C" void hotset_double_fail(const char* call, int nth, int code) {
    Lock guard(lock);
    planned[call] = {nth, code};
}
// Forgets all failures, and what was allocated if the context was lost; bytes of device memory from now on.
extern "C" void hotset_double_reset(u64 bytes) {
    Lock guard(lock);
    planned.clear();
    if (lost != 0) {
        for (auto& [start, size] : allocations) munmap((void*)start, size);
        allocations.clear();
    }
    lost = 0;
    capacity = bytes;
}
// Bytes of device memory taken.
extern "C" u64 hotset_double_taken() {
    Lock guard(lock);
    u64 taken = 0;
    for (auto& [start, bytes] : allocations) taken += bytes;
    return taken;
}

CALL(cuInit, unsigned) END
CALL(cuDriverGetVersion, int* version) *version = 13000; END
CALL(cuDeviceGetCount, int* count) *count = 1; END
CALL(cuDeviceGet, int* device, int ordinal)
    if (ordinal != 0) return NoDevice;
    *device = 0;
END
CALL(cuDeviceGetName, char* name, int bytes, int) std::snprintf(name, bytes, "test double"); END
CALL(cuDeviceGetAttribute, int* value, int attribute, int)
    // Multiprocessors, compute capability 9.0; anything else is there.
    *value = attribute == 16 ? 4 : attribute == 75 ? 9 : attribute == 76 ? 0 : 1;
END
CALL(cuDevicePrimaryCtxRetain, void** context, int) *context = &streams; END
CALL(cuDevicePrimaryCtxRelease_v2, int) END
CALL(cuCtxSetCurrent, void* context) current = context; END
CALL(cuCtxGetCurrent, void** context) *context = current; END
CALL(cuCtxSynchronize) finish_all(); return lost; END

CALL(cuStreamCreateWithPriority, void** stream, unsigned, int)
    streams.push_back(new Stream);
    *stream = streams.back();
END
CALL(cuStreamCreate, void** stream, unsigned flags) return cuStreamCreateWithPriority(stream, flags, 0); END
extern "C" int cuStreamDestroy_v2(void* stream) {
    Lock guard(lock);
    finish((Stream*)stream);
    streams.erase(std::find(streams.begin(), streams.end(), (Stream*)stream));
    delete (Stream*)stream;
    return 0;
}
// Even where waiting is to fail, the work has ended.
extern "C" int cuStreamSynchronize(void* stream) {
    Lock guard(lock);
    finish((Stream*)stream);
    return verdict("cuStreamSynchronize");
}
CALL(cuStreamWaitEvent, void* stream, void* event, unsigned)
    Event* awaited = (Event*)event;
    u64 until = awaited->recorded;
    return submit(stream, [=] {
        while (awaited->reached < until) run_one(awaited->stream);
        return 0;
    });
END

CALL(cuEventCreate, void** event, unsigned) *event = new Event; END
CALL(cuEventRecord, void* event, void* stream)
    Event* mark = (Event*)event;
    mark->stream = (Stream*)stream;
    u64 number = ++mark->recorded;
    return submit(stream, [=] {
        auto now = std::chrono::steady_clock::now().time_since_epoch();
        mark->milliseconds = std::chrono::duration<double, std::milli>(now).count();
        mark->reached = number;
        return 0;
    }, true);
END
extern "C" int cuEventSynchronize(void* event) {
    Lock guard(lock);
    Event* mark = (Event*)event;
    while (mark->reached < mark->recorded) run_one(mark->stream);
    return verdict("cuEventSynchronize");
}
CALL(cuEventQuery, void* event)
    Event* mark = (Event*)event;
    if (mark->reached < mark->recorded) run_one(mark->stream);
    return mark->reached < mark->recorded ? NotReady : lost;
END
CALL(cuEventElapsedTime_v2, float* milliseconds, void* begun, void* ended)
    Event *from = (Event*)begun, *to = (Event*)ended;
    if (from->reached < from->recorded || to->reached < to->recorded) return NotReady;
    *milliseconds = (float)(to->milliseconds - from->milliseconds);
END
extern "C" int cuEventDestroy_v2(void* event) {
    Lock guard(lock);
    Event* mark = (Event*)event;
    while (mark->reached < mark->recorded) run_one(mark->stream);
    delete mark;
    return 0;
}

CALL(cuMemGetInfo_v2, size_t* left, size_t* all)
    *all = capacity;
    *left = capacity - hotset_double_taken();
END
CALL(cuMemAlloc_v2, u64* address, size_t bytes)
    size_t pages = (bytes + 4095) / 4096 * 4096;
    if (hotset_double_taken() + pages > capacity) return OutOfMemory;
    void* start = mmap(nullptr, pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return OutOfMemory;
    *address = (u64)start;
    allocations[*address] = pages;
END
extern "C" int cuMemFree_v2(u64 address) {
    Lock guard(lock);
    finish_all();
    auto taken = allocations.find(address);
    if (taken == allocations.end()) return BadAddress;
    munmap((void*)address, taken->second);
    allocations.erase(taken);
    return 0;
}
CALL(cuMemHostAlloc, void** memory, size_t bytes, unsigned) *memory = std::malloc(bytes); END
extern "C" int cuMemFreeHost(void* memory) {
    Lock guard(lock);
    finish_all();
    std::free(memory);
    return 0;
}
CALL(cuMemHostRegister_v2, void*, size_t, unsigned) END
extern "C" int cuMemHostUnregister(void*) { return 0; }

CALL(cuMemcpyHtoDAsync_v2, u64 to, const void* from, size_t bytes, void* stream)
    return submit(stream, [=] {
        if (!allocated(to, bytes)) return (int)BadAddress;
        Opened opened;
        std::memcpy((void*)to, from, bytes);
        return 0;
    });
END
CALL(cuMemcpyDtoHAsync_v2, void* to, u64 from, size_t bytes, void* stream)
    return submit(stream, [=] {
        if (!allocated(from, bytes)) return (int)BadAddress;
        Opened opened;
        std::memcpy(to, (const void*)from, bytes);
        return 0;
    });
END
CALL(cuMemcpyDtoDAsync_v2, u64 to, u64 from, size_t bytes, void* stream)
    return submit(stream, [=] {
        if (!allocated(to, bytes) || !allocated(from, bytes)) return (int)BadAddress;
        Opened opened;
        std::memmove((void*)to, (const void*)from, bytes);
        return 0;
    });
END

CALL(cuModuleLoadData, void** module, const void* image)
    // The magic number of a fat binary.
    if (*(const u32*)image != 0xba55ed50) return BadImage;
    *module = &streams;
END
CALL(cuModuleUnload, void*) END
CALL(cuModuleGetFunction, void** function, void*, const char* name)
    auto kernel = cpu::kernels().find(name);
    if (kernel == cpu::kernels().end()) return NotFound;
    *function = (void*)kernel->first.c_str();
END
CALL(cuLaunchKernel, void* function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned,
     void* stream, void** arguments, void**)
    const char* name = (const char*)function;
    std::vector<u64> words;
    for (u32 i = 0; i < cpu::kernels()[name].arguments; i++) words.push_back(*(u64*)arguments[i]);
    return submit(stream, [=]() mutable {
        std::vector<void*> places;
        for (u64& word : words) places.push_back(&word);
        Opened opened;
        const u32 grid[3] = {x, y, z};
        return cpu::launch(name, grid, threads, places.data(), false);
    });
END

extern "C" int cuGetErrorName(int code, const char** name) {
    *name = code == OutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR";
    return 0;
}
extern "C" int cuGetErrorString(int code, const char** text) {
    *text = code == OutOfMemory ? "out of memory" : "an error of the test double";
    return 0;
}

// cuBLASLt: the one kind of product that Hotset asks it for. The library is found under its own name beside this one.
namespace {

struct MatrixLayout {
    int type;
    u64 rows, columns;
    long long leading;
};
struct Description {
    int transposed = 0;
};
// An algorithm, its workspace, whether it will do, and how it fills the device.
struct Heuristic {
    u64 algorithm[8], workspace;
    int state;
    f32 waves;
    int reserved[4];
};
enum { F32 = 0, Bf16 = 14, TransposeA = 3, InternalError = 14, NotSupported = 15 };

bool fits(const MatrixLayout& a, const MatrixLayout& b, const MatrixLayout& d, const Description& how) {
    return how.transposed == 1 && a.type == Bf16 && b.type == Bf16 && d.type == F32 && a.rows == b.rows &&
           a.columns == d.rows && b.columns == d.columns;
}

}  // namespace

// As CALL, with the library's own code for a device that fails.
#define BLAS_CALL(name, ...)      \
    extern "C" int name(__VA_ARGS__) { \
        Lock guard(lock);         \
        if (verdict(#name) != 0) return InternalError;

BLAS_CALL(cublasLtCreate, void** handle) *handle = &streams; END
extern "C" int cublasLtDestroy(void*) { return 0; }
BLAS_CALL(cublasLtMatrixLayoutCreate, void** layout, int type, u64 rows, u64 columns, long long leading)
    *layout = new MatrixLayout{type, rows, columns, leading};
END
extern "C" int cublasLtMatrixLayoutDestroy(void* layout) { delete (MatrixLayout*)layout; return 0; }
BLAS_CALL(cublasLtMatmulDescCreate, void** description, int, int) *description = new Description; END
BLAS_CALL(cublasLtMatmulDescSetAttribute, void* description, int attribute, const void* value, size_t)
    if (attribute == TransposeA) ((Description*)description)->transposed = *(const int*)value;
END
extern "C" int cublasLtMatmulDescDestroy(void* description) { delete (Description*)description; return 0; }
BLAS_CALL(cublasLtMatmulPreferenceCreate, void** preference) *preference = &streams; END
extern "C" int cublasLtMatmulPreferenceSetAttribute(void*, int, const void*, size_t) { return 0; }
extern "C" int cublasLtMatmulPreferenceDestroy(void*) { return 0; }
BLAS_CALL(cublasLtMatmulAlgoGetHeuristic, void*, void* how, void* a, void* b, void*, void* d, void*, int,
          Heuristic* chosen, int* found)
    if (!fits(*(MatrixLayout*)a, *(MatrixLayout*)b, *(MatrixLayout*)d, *(Description*)how)) return NotSupported;
    *chosen = {};
    *found = 1;
END
BLAS_CALL(cublasLtMatmul, void*, void* how, const void*, const u16* a, void* a_layout, const u16* b, void* b_layout,
     const f32* beta, const void*, void*, f32* d, void* d_layout, const void*, void*, size_t, void* stream)
    MatrixLayout m = *(MatrixLayout*)a_layout, x = *(MatrixLayout*)b_layout, y = *(MatrixLayout*)d_layout;
    if (!fits(m, x, y, *(Description*)how) || ((u64)a | (u64)b | (u64)d) % 16 != 0) return NotSupported;
    f32 before = *beta;
    return submit(stream, [=] {
        if (!allocated((u64)a, m.rows * m.columns * 2) || !allocated((u64)d, y.rows * y.columns * 4)) return (int)BadAddress;
        Opened opened;
        for (u64 row = 0; row < y.rows; row++) {
            for (u64 token = 0; token < y.columns; token++) {
                double sum = 0;
                for (u64 k = 0; k < m.rows; k++) {
                    sum += (double)bf16_to_f32(a[row * m.leading + k]) * bf16_to_f32(b[token * x.leading + k]);
                }
                f32* out = d + token * y.leading + row;
                *out = (f32)sum + (before == 0 ? 0 : before * *out);
            }
        }
        return 0;
    });
END
