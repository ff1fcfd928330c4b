// Between the formats without scales: eight elements a thread.
#include "numbers.cuh"

#define PLAIN(to, To, from, From)                                                     \
    KERNEL(256, 4, encode_##to##_from_##from, const u8* source, u8* copy, u64 elements) { \
        u64 first = (blockIdx.x * 256ull + threadIdx.x) * 8;                           \
        f32 values[8];                                                                 \
        load_unit<From>(source, first, 0, elements, values);                           \
        store_unit<To>(copy, first, 0, elements, values);                              \
    }

PLAIN(bf16, Bf16, fp16, Fp16)
PLAIN(bf16, Bf16, fp32, Fp32)
PLAIN(fp16, Fp16, bf16, Bf16)
PLAIN(fp16, Fp16, fp32, Fp32)
PLAIN(fp32, Fp32, bf16, Bf16)
PLAIN(fp32, Fp32, fp16, Fp16)
