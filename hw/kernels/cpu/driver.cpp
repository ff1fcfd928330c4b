// A test double of CUDA's driver: the calls that Hotset makes of libcuda, carried out by the CPU.
//
// It is stricter than a device. Work on a stream is not done when it is submitted but when somebody waits for it, so a
// buffer that is used again too early, or a wait that is missing, gives wrong bytes. Device memory cannot be read or
// written by the host, nor by the other one of its two devices, but by peer copies. A copy or kernel outside of what was
// allocated ends the context, as it does on a device. What is called for one device while another is current is
// refused. Memory that is write-combined is not written by a device: the host would be slow to read it. Calls can be
// made to fail. Times are those of the CPU and mean nothing.
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <deque>
#include <set>

#include "library.cpp"

namespace {

enum {
    BadValue = 1,
    OutOfMemory = 2,
    NoDevice = 101,
    BadImage = 200,
    BadContext = 201,
    NoPeerAccess = 217,
    NotFound = 500,
    NotReady = 600,
    BadAddress = 700,
    PeerAccessAlready = 704
};
enum { Devices = 2, WriteCombined = 4 };

std::recursive_mutex lock;
typedef std::lock_guard<std::recursive_mutex> Lock;

struct Work {
    std::function<int()> run;
    bool mark;
};
struct Stream {
    int device;
    std::deque<Work> work;
};
struct Event {
    Stream* stream = nullptr;
    u64 recorded = 0, reached = 0;
    double milliseconds = 0;
};

struct Allocation {
    u64 bytes;
    int device;
};
// A device's one context.
struct Context {
    int device;
    std::set<int> reaches;
};

std::map<u64, Allocation> allocations;
std::map<void*, size_t> write_combined;
std::map<std::string, std::pair<int, int>> planned;
Context contexts[Devices] = {{0, {}}, {1, {}}};
u64 capacity = 1ull << 30;
u64 short_by = 0;
bool peers = getenv("HOTSET_DOUBLE_ALONE") == nullptr;
int lost = 0;
thread_local Context* current = nullptr;

// The memory of a device, open to the CPU for as long as it does the device's work.
struct Opened {
    int device;
    explicit Opened(int device) : device(device) { protect(PROT_READ | PROT_WRITE); }
    ~Opened() { protect(PROT_NONE); }
    void protect(int how) {
        for (auto& [start, taken] : allocations) {
            if (taken.device == device) mprotect((void*)start, taken.bytes, how);
        }
    }
};

// What a call is to return: an error once something has failed for good, or one that a test has planned.
int verdict(const char* call) {
    if (lost != 0) return lost;
    auto plan = planned.find(call);
    if (plan == planned.end() || --plan->second.first > 0) return 0;
    int code = plan->second.second;
    planned.erase(plan);
    // From 5000 on they are codes of cuFile's, which a context survives.
    if (code >= BadAddress && code < 5000) lost = code;
    return code;
}

// Whether these bytes are of one piece of a device's memory.
bool allocated(int device, u64 at, u64 bytes) {
    auto after = allocations.upper_bound(at);
    if (after == allocations.begin()) return bytes == 0;
    auto [start, taken] = *std::prev(after);
    return taken.device == device && at + bytes <= start + taken.bytes;
}

bool is_write_combined(const void* at) {
    auto after = write_combined.upper_bound((void*)at);
    if (after == write_combined.begin()) return false;
    auto [start, bytes] = *std::prev(after);
    return (const char*)at < (const char*)start + bytes;
}

u64 taken_of(int device) {
    u64 taken = 0;
    for (auto& [start, allocation] : allocations) taken += allocation.device == device ? allocation.bytes : 0;
    return taken;
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
    if (current == nullptr || ((Stream*)stream)->device != current->device) return BadContext;
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
// Forgets all failures, and what was allocated if the context was lost; bytes of each device's memory from now on.
extern "C" void hotset_double_reset(u64 bytes) {
    Lock guard(lock);
    planned.clear();
    if (lost != 0) {
        for (auto& [start, taken] : allocations) munmap((void*)start, taken.bytes);
        allocations.clear();
    }
    lost = 0;
    capacity = bytes;
    short_by = 0;
}
// Whether the two devices can be given access to each other's memory, from now on.
extern "C" void hotset_double_peers(int can) {
    Lock guard(lock);
    peers = can != 0;
    for (Context& context : contexts) context.reaches.clear();
}
// Whether `device` was given access to the other one's memory.
extern "C" int hotset_double_reaches(int device) {
    Lock guard(lock);
    return !contexts[device].reaches.empty();
}
// Bytes of a device's memory that are taken.
extern "C" u64 hotset_double_taken(int device) {
    Lock guard(lock);
    return taken_of(device);
}

CALL(cuInit, unsigned) END
CALL(cuDriverGetVersion, int* version) *version = 13000; END
CALL(cuDeviceGetCount, int* count) *count = Devices; END
CALL(cuDeviceGet, int* device, int ordinal)
    if (ordinal < 0 || ordinal >= Devices) return NoDevice;
    *device = ordinal;
END
CALL(cuDeviceGetName, char* name, int bytes, int) std::snprintf(name, bytes, "test double"); END
CALL(cuDeviceGetAttribute, int* value, int attribute, int)
    // Multiprocessors, compute capability 9.0; anything else is there.
    *value = attribute == 16 ? 4 : attribute == 75 ? 9 : attribute == 76 ? 0 : 1;
END
CALL(cuDeviceCanAccessPeer, int* can, int device, int peer) *can = peers && device != peer; END
CALL(cuDevicePrimaryCtxRetain, void** context, int device) *context = &contexts[device]; END
CALL(cuDevicePrimaryCtxRelease_v2, int) END
CALL(cuCtxSetCurrent, void* context) current = (Context*)context; END
CALL(cuCtxGetCurrent, void** context) *context = current; END
CALL(cuCtxSynchronize) finish_all(); return lost; END
CALL(cuCtxEnablePeerAccess, void* context, unsigned flags)
    int peer = ((Context*)context)->device;
    if (flags != 0 || peer == current->device) return BadValue;
    if (!peers) return NoPeerAccess;
    if (!current->reaches.insert(peer).second) return PeerAccessAlready;
END

CALL(cuStreamCreateWithPriority, void** stream, unsigned, int)
    if (current == nullptr) return BadContext;
    streams.push_back(new Stream{current->device, {}});
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
    *left = capacity - taken_of(current->device);
END
CALL(cuMemAlloc_v2, u64* address, size_t bytes)
    size_t pages = (bytes + 4095) / 4096 * 4096;
    if (taken_of(current->device) + pages > capacity) return OutOfMemory;
    void* start = mmap(nullptr, pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return OutOfMemory;
    *address = (u64)start;
    allocations[*address] = {pages, current->device};
END
extern "C" int cuMemFree_v2(u64 address) {
    Lock guard(lock);
    finish_all();
    auto taken = allocations.find(address);
    if (taken == allocations.end()) return BadAddress;
    munmap((void*)address, taken->second.bytes);
    allocations.erase(taken);
    return 0;
}
CALL(cuMemHostAlloc, void** memory, size_t bytes, unsigned flags)
    if (posix_memalign(memory, 4096, bytes) != 0) return OutOfMemory;
    if (flags & WriteCombined) write_combined[*memory] = bytes;
END
extern "C" int cuMemFreeHost(void* memory) {
    Lock guard(lock);
    finish_all();
    write_combined.erase(memory);
    std::free(memory);
    return 0;
}
CALL(cuMemHostRegister_v2, void*, size_t, unsigned) END
extern "C" int cuMemHostUnregister(void*) { return 0; }

CALL(cuMemcpyHtoDAsync_v2, u64 to, const void* from, size_t bytes, void* stream)
    int device = ((Stream*)stream)->device;
    return submit(stream, [=] {
        if (!allocated(device, to, bytes)) return (int)BadAddress;
        Opened opened(device);
        std::memcpy((void*)to, from, bytes);
        return 0;
    });
END
CALL(cuMemcpyDtoHAsync_v2, void* to, u64 from, size_t bytes, void* stream)
    int device = ((Stream*)stream)->device;
    if (is_write_combined(to)) return BadValue;
    return submit(stream, [=] {
        if (!allocated(device, from, bytes)) return (int)BadAddress;
        Opened opened(device);
        std::memcpy(to, (const void*)from, bytes);
        return 0;
    });
END
CALL(cuMemcpyDtoDAsync_v2, u64 to, u64 from, size_t bytes, void* stream)
    int device = ((Stream*)stream)->device;
    return submit(stream, [=] {
        if (!allocated(device, to, bytes) || !allocated(device, from, bytes)) return (int)BadAddress;
        Opened opened(device);
        std::memmove((void*)to, (const void*)from, bytes);
        return 0;
    });
END
CALL(cuMemcpyPeerAsync, u64 to, void* to_context, u64 from, void* from_context, size_t bytes, void* stream)
    int target = ((Context*)to_context)->device, source = ((Context*)from_context)->device;
    return submit(stream, [=] {
        if (!allocated(target, to, bytes) || !allocated(source, from, bytes)) return (int)BadAddress;
        Opened opened_source(source), opened_target(target);
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
    int device = ((Stream*)stream)->device;
    std::vector<u64> words;
    for (u32 i = 0; i < cpu::kernels()[name].arguments; i++) words.push_back(*(u64*)arguments[i]);
    return submit(stream, [=]() mutable {
        std::vector<void*> places;
        for (u64& word : words) places.push_back(&word);
        Opened opened(device);
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

// Other libraries that Hotset asks for; they are found under their own names beside this one.
#include "cublaslt.cpp"
#include "cufile.cpp"
