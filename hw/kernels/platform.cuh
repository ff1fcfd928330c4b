// What the kernels need of the machine: integer names, warp-wide exchanges, wide loads, conversions, one matrix
// instruction. On an accelerator each is an instruction; elsewhere `cpu/machine.hpp` supplies them, so that the tests
// execute this very source. No NVIDIA header is included: nvcc and NVRTC know what is used here by themselves.
//
// Conventions. Arguments of a kernel are eight bytes each, so that a launch is a name, a grid and a list of words.
// A copy begins at a multiple of 256 bytes; nothing else is assumed aligned unless it follows. No thread leaves before
// a warp-wide or block-wide operation of its kernel. The source is compiled without contraction of a * b + c, because
// encoders must round as the host does; where one rounding is wanted, `fused` says so.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;
typedef float f32;

struct alignas(8) u32x2 { u32 word[2]; };
struct alignas(16) u32x4 { u32 word[4]; };

#define WARP 32u

#if defined(__CUDACC__)

#define DEVICE static __device__ __forceinline__
// `resident` blocks at least must fit a multiprocessor: that bounds a thread's registers.
#define KERNEL(threads, resident, name, ...) \
    extern "C" __global__ void __launch_bounds__(threads, resident) name(__VA_ARGS__)
#define SHARED __shared__

template <class T> DEVICE T shuffle(T value, u32 lane) { return __shfl_sync(0xffffffffu, value, lane); }
template <class T> DEVICE T shuffle_xor(T value, u32 mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
template <class T> DEVICE T shuffle_up(T value, u32 by) { return __shfl_up_sync(0xffffffffu, value, by); }
DEVICE void sync_block() { __syncthreads(); }
DEVICE void fence() { __threadfence(); }

DEVICE u32 bits_of(f32 value) { return __float_as_uint(value); }
DEVICE f32 of_bits(u32 bits) { return __uint_as_float(bits); }
DEVICE f32 fused(f32 a, f32 b, f32 c) { return __fmaf_rn(a, b, c); }
DEVICE u32 count_ones(u32 bits) { return __popc(bits); }

// Weights are read once: they pass through the first-level cache without staying.
DEVICE u32x4 stream16(const u8* from) {
    u32x4 got;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(got.word[0]), "=r"(got.word[1]), "=r"(got.word[2]), "=r"(got.word[3])
                 : "l"(from));
    return got;
}
DEVICE u32x2 stream8(const u8* from) {
    u32x2 got;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];"
                 : "=r"(got.word[0]), "=r"(got.word[1])
                 : "l"(from));
    return got;
}
// Small numbers that nobody writes during the launch.
DEVICE u32 read_u8(const u8* from) {
    u32 got;
    asm volatile("ld.global.nc.u8 %0, [%1];" : "=r"(got) : "l"(from));
    return got;
}
DEVICE u32 read_u16(const u8* from) {
    u16 got;
    asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(got) : "l"(from));
    return got;
}
DEVICE u32 read_u32(const u8* from) {
    u32 got;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(got) : "l"(from));
    return got;
}
// Written by another block of the same launch: not from a cache that may hold what was there before.
DEVICE f32 load_fresh(const f32* from) {
    f32 got;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(got) : "l"(from) : "memory");
    return got;
}

// The value of an f16; a NaN's payload is not kept.
DEVICE f32 half_value(u16 bits) {
    f32 value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
// The f16 nearest to a value, ties to even; not for NaN.
DEVICE u16 half_nearest(f32 value) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
// Two values as bf16, nearest even, the first in the low half.
DEVICE u32 bf16_pair(f32 low, f32 high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
// a * b + c on pairs of bf16.
DEVICE u32 bf16_pair_fused(u32 a, u32 b, u32 c) {
    u32 pair;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(pair) : "r"(a), "r"(b), "r"(c));
    return pair;
}
// Bytes of a (0 to 3) and b (4 to 7), picked by the four digits of `pick`, the lowest byte by the lowest.
DEVICE u32 pick_bytes(u32 a, u32 b, u32 pick) { return __byte_perm(a, b, pick); }

// (value & mask) | bits in one instruction, which a compiler finds only where one of them is a variable.
DEVICE u32 masked_or(u32 value, u32 mask, u32 bits) {
    u32 got;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(got) : "r"(value), "r"(mask), "r"(bits));
    return got;
}

// sum += a b for a of 16 rows by 16 and b of 16 by 8 columns, bf16, spread over the warp as PTX's mma.m16n8k16 says.
DEVICE void matrix_multiply_add(f32 (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

#else
#include "cpu/machine.hpp"
#endif

DEVICE u64 least(u64 a, u64 b) { return a < b ? a : b; }
DEVICE u32 larger(u32 a, u32 b) { return a < b ? b : a; }

// Reads and writes at addresses that may be odd: the scale plane begins where the elements end.
DEVICE bool aligned(const void* at, u64 to) { return ((u64)at & (to - 1)) == 0; }
DEVICE u16 load_u16(const u8* at) {
    return aligned(at, 2) ? *(const u16*)at : (u16)(at[0] | at[1] << 8);
}
DEVICE u32 load_u32(const u8* at) {
    return aligned(at, 4) ? *(const u32*)at : (u32)load_u16(at) | (u32)load_u16(at + 2) << 16;
}
DEVICE void store_u16(u8* at, u16 value) {
    if (aligned(at, 2)) {
        *(u16*)at = value;
    } else {
        at[0] = (u8)value;
        at[1] = (u8)(value >> 8);
    }
}
DEVICE void store_u32(u8* at, u32 value) {
    if (aligned(at, 4)) {
        *(u32*)at = value;
    } else {
        store_u16(at, (u16)value);
        store_u16(at + 2, (u16)(value >> 16));
    }
}
