// An accelerator's execution model on the CPU, for tests: one block at a time, its threads as fibers.
//
// A fiber runs until its warp or its block must meet. A warp-wide operation goes on when all 32 lanes have come to it,
// a block-wide one when all threads have; a thread that left before, or lanes that wait in different places, end the
// launch with an error, where an accelerator would hang or do anything at all. The order in which lanes and warps run
// can be turned around: a kernel that lacks a barrier then gives different results.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#define DEVICE static inline
#define SHARED static
#define KERNEL(threads, resident, name, ...)                            \
    extern "C" void name(__VA_ARGS__);                                  \
    static const cpu::Registered registered_##name(#name, threads, name); \
    extern "C" void name(__VA_ARGS__)

struct Index {
    u32 x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

namespace cpu {

enum class State { Ready, AtWarp, AtBlock, Done };

struct Fiber {
    ucontext_t start;
    jmp_buf at;
    std::unique_ptr<char[]> stack;
    bool begun = false;
    State state = State::Done;
    const char* place = nullptr;
};

struct Kernel {
    u32 threads, arguments;
    std::function<void(void**)> call;
};

// What one lane shows the others of its warp.
struct Shown {
    u64 words[10];
};

static std::vector<Fiber> fibers;
static std::vector<Shown> shown;
static std::function<void()> body;
static jmp_buf scheduler;
static u32 running;

static std::map<std::string, Kernel>& kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

template <class... P, size_t... I>
static void call_with(void (*kernel)(P...), void** arguments, std::index_sequence<I...>) {
    kernel(*(P*)arguments[I]...);
}

struct Registered {
    template <class... P>
    Registered(const char* name, u32 threads, void (*kernel)(P...)) {
        static_assert(((sizeof(P) == 8) && ...), "arguments are eight bytes each");
        kernels()[name] = {threads, (u32)sizeof...(P), [kernel](void** arguments) {
                               call_with(kernel, arguments, std::index_sequence_for<P...>());
                           }};
    }
};

static void fiber_main() {
    for (;;) {
        body();
        Fiber& self = fibers[running];
        self.state = State::Done;
        if (_setjmp(self.at) == 0) _longjmp(scheduler, 1);
    }
}

__attribute__((noinline)) static void meet(State where, const char* place) {
    Fiber& self = fibers[running];
    self.state = where;
    self.place = place;
    if (_setjmp(self.at) == 0) _longjmp(scheduler, 1);
}

__attribute__((noinline)) static void resume(u32 thread) {
    const size_t stack_bytes = 64 << 10;
    Fiber& fiber = fibers[thread];
    running = thread;
    threadIdx = {thread, 0, 0};
    if (_setjmp(scheduler) != 0) return;
    if (fiber.begun) _longjmp(fiber.at, 1);
    fiber.begun = true;
    fiber.stack.reset(new char[stack_bytes]);
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = stack_bytes;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, fiber_main, 0);
    setcontext(&fiber.start);
}

static bool all(u32 from, u32 to, State state, const char* place) {
    for (u32 thread = from; thread < to; thread++) {
        if (fibers[thread].state != state || fibers[thread].place != place) return false;
    }
    return true;
}

static bool release(u32 from, u32 to, State state) {
    if (fibers[from].state != state || !all(from, to, state, fibers[from].place)) return false;
    for (u32 thread = from; thread < to; thread++) fibers[thread].state = State::Ready;
    return true;
}

// Runs one block to its end; false if its threads can never meet.
static bool run_block(u32 threads, bool backward) {
    for (u32 thread = 0; thread < threads; thread++) fibers[thread].state = State::Ready;
    for (;;) {
        bool moved = false;
        for (u32 turn = 0; turn < threads; turn++) {
            u32 thread = backward ? threads - 1 - turn : turn;
            if (fibers[thread].state != State::Ready) continue;
            moved = true;
            resume(thread);
        }
        for (u32 first = 0; first < threads; first += WARP) moved |= release(first, first + WARP, State::AtWarp);
        moved |= release(0, threads, State::AtBlock);
        if (moved) continue;
        return std::all_of(fibers.begin(), fibers.begin() + threads,
                           [](const Fiber& fiber) { return fiber.state == State::Done; });
    }
}

enum Outcome { Ok = 0, UnknownKernel = 500, WrongThreads = 1, NeverMeet = 719 };

// One launch; the result is a code of CUDA's driver.
static int launch(const char* name, const u32 (&grid)[3], u32 threads, void** arguments, bool backward) {
    static std::mutex one_at_a_time;
    std::lock_guard<std::mutex> lock(one_at_a_time);
    auto kernel = kernels().find(name);
    if (kernel == kernels().end()) return UnknownKernel;
    if (threads != kernel->second.threads || threads % WARP != 0) return WrongThreads;
    if (fibers.size() < threads) {
        fibers = std::vector<Fiber>(threads);
        shown.resize(threads);
    }
    body = [&] { kernel->second.call(arguments); };
    blockDim = {threads, 1, 1};
    gridDim = {grid[0], grid[1], grid[2]};
    for (u32 z = 0; z < grid[2]; z++) {
        for (u32 y = 0; y < grid[1]; y++) {
            for (u32 x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                if (run_block(threads, backward)) continue;
                std::fprintf(stderr, "%s: threads of block %u,%u,%u never meet\n", name, x, y, z);
                fibers.clear();
                return NeverMeet;
            }
        }
    }
    return Ok;
}

template <class T>
static T exchange(T value, u32 from, const char* place) {
    static_assert(sizeof(T) <= sizeof(Shown), "a register or two");
    u32 self = running;
    std::memcpy(&shown[self], &value, sizeof(T));
    meet(State::AtWarp, place);
    T got;
    std::memcpy(&got, &shown[self / WARP * WARP + from], sizeof(T));
    meet(State::AtWarp, "seen");
    return got;
}

}  // namespace cpu

template <class T> DEVICE T shuffle(T value, u32 lane) { return cpu::exchange(value, lane % WARP, "shuffle"); }
template <class T> DEVICE T shuffle_xor(T value, u32 mask) {
    return cpu::exchange(value, (threadIdx.x ^ mask) % WARP, "shuffle_xor");
}
template <class T> DEVICE T shuffle_up(T value, u32 by) {
    u32 lane = threadIdx.x % WARP;
    return cpu::exchange(value, lane < by ? lane : lane - by, "shuffle_up");
}
DEVICE void sync_block() { cpu::meet(cpu::State::AtBlock, "sync_block"); }
DEVICE void fence() {}

template <class T> DEVICE T atomicAdd(T* at, T value) {
    T before = *at;
    *at = before + value;
    return before;
}
template <class T> DEVICE T atomicMin(T* at, T value) {
    T before = *at;
    *at = value < before ? value : before;
    return before;
}

DEVICE u32 bits_of(f32 value) {
    u32 bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}
DEVICE f32 of_bits(u32 bits) {
    f32 value;
    std::memcpy(&value, &bits, 4);
    return value;
}
DEVICE f32 fused(f32 a, f32 b, f32 c) { return std::fmaf(a, b, c); }
DEVICE u32 count_ones(u32 bits) { return (u32)__builtin_popcount(bits); }

DEVICE u32x4 stream16(const u8* from) { return *(const u32x4*)from; }
DEVICE u32x2 stream8(const u8* from) { return *(const u32x2*)from; }
DEVICE u32 read_u8(const u8* from) { return *from; }
DEVICE u32 read_u16(const u8* from) { return *(const u16*)from; }
DEVICE u32 read_u32(const u8* from) { return *(const u32*)from; }
DEVICE u32 masked_or(u32 value, u32 mask, u32 bits) { return (value & mask) | bits; }
DEVICE f32 load_fresh(const f32* from) { return *from; }

DEVICE f32 half_value(u16 bits) {
    u32 sign = (u32)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
    f32 magnitude = exponent == 31  ? of_bits(0x7f800000 | mantissa << 13)
                    : exponent == 0 ? (f32)mantissa * 0x1p-24f
                                    : of_bits((exponent + 112) << 23 | mantissa << 13);
    return of_bits(bits_of(magnitude) | sign);
}
DEVICE u16 half_nearest(f32 value) {
    u32 bits = bits_of(value), magnitude = bits & 0x7fffffff;
    u16 sign = (u16)(bits >> 16 & 0x8000);
    if (magnitude >= 0x47800000) return sign | 0x7c00;
    // Below the smallest normal number the steps are 2^-24: adding 0.5 leaves their count in the low bits.
    if (magnitude < 0x38800000) return sign | (u16)bits_of(of_bits(magnitude) + 0.5f);
    return sign | (u16)((magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

DEVICE f32 bf16_low(u32 pair) { return of_bits(pair << 16); }
DEVICE f32 bf16_high(u32 pair) { return of_bits(pair & 0xffff0000); }
DEVICE u32 bf16_pair(f32 low, f32 high) {
    auto nearest = [](f32 value) -> u32 {
        u32 bits = bits_of(value);
        if (value != value) return 0x7fff;
        return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    };
    return nearest(low) | nearest(high) << 16;
}
// Exact in double for what the kernels do with it, so that only one rounding follows.
DEVICE u32 bf16_pair_fused(u32 a, u32 b, u32 c) {
    auto low = (double)bf16_low(a) * bf16_low(b) + bf16_low(c);
    auto high = (double)bf16_high(a) * bf16_high(b) + bf16_high(c);
    return bf16_pair((f32)low, (f32)high);
}
DEVICE u32 pick_bytes(u32 a, u32 b, u32 pick) {
    u64 bytes = (u64)b << 32 | a;
    u32 picked = 0;
    for (u32 place = 0; place < 4; place++) {
        picked |= (u32)(bytes >> ((pick >> (4 * place) & 7) * 8) & 0xff) << (8 * place);
    }
    return picked;
}

DEVICE void matrix_multiply_add(f32 (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    u32 self = cpu::running, first = self / WARP * WARP, lane = self % WARP;
    u32 mine[6] = {a0, a1, a2, a3, b0, b1};
    std::memcpy(&cpu::shown[self], mine, sizeof mine);
    cpu::meet(cpu::State::AtWarp, "matrix_multiply_add");
    auto half = [&](u32 from, u32 word, u32 odd) {
        u32 pair = ((const u32*)&cpu::shown[first + from])[word];
        return odd ? bf16_high(pair) : bf16_low(pair);
    };
    for (u32 place = 0; place < 4; place++) {
        u32 row = lane / 4 + 8 * (place >> 1), column = 2 * (lane % 4) + (place & 1);
        for (u32 k = 0; k < 16; k++) {
            f32 a = half(row % 8 * 4 + k % 8 / 2, (row >= 8) + 2 * (k >= 8), k & 1);
            f32 b = half(column * 4 + k % 8 / 2, 4 + (k >= 8), k & 1);
            sum[place] += a * b;
        }
    }
    cpu::meet(cpu::State::AtWarp, "seen");
}
