// A copy's checksum, as hw/src/checksum.rs defines it: a wrapping sum over its eight-byte words, so any order will do.
#include "platform.cuh"

#define CHECKSUM_WORDS 8u

DEVICE u64 term(u64 word, u64 index) {
    u64 mixed = word ^ (index + 1) * 0x9E3779B97F4A7C15ull;
    return (mixed & 0xffffffffull) * (mixed >> 32) + word;
}

DEVICE u64 mix64(u64 h) {
    h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9ull;
    h = (h ^ h >> 27) * 0x94D049BB133111EBull;
    return h ^ h >> 31;
}

// The sum of `bytes` bytes from `at`, a multiple of 16, goes to `result[0]`. `result[1]` and `result[2]` are the sum so
// far and the blocks that have added to it; both must be zero before the launch and are so after it.
KERNEL(256, 4, checksum, const u8* at, u64 bytes, u64* result) {
    SHARED u64 sums[8];
    u64 sum = 0, pairs = bytes / 16;
    for (u64 base = blockIdx.x * 256ull * CHECKSUM_WORDS; base < pairs; base += gridDim.x * 256ull * CHECKSUM_WORDS) {
        u32x4 got[CHECKSUM_WORDS];
#pragma unroll
        for (u32 i = 0; i < CHECKSUM_WORDS; i++) {
            u64 pair = base + i * 256 + threadIdx.x;
            got[i] = pair < pairs ? stream16(at + pair * 16) : u32x4{};
        }
#pragma unroll
        for (u32 i = 0; i < CHECKSUM_WORDS; i++) {
            u64 pair = base + i * 256 + threadIdx.x;
            if (pair >= pairs) continue;
            sum += term(got[i].word[0] | (u64)got[i].word[1] << 32, 2 * pair);
            sum += term(got[i].word[2] | (u64)got[i].word[3] << 32, 2 * pair + 1);
        }
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        for (u64 word = pairs * 2; word * 8 < bytes; word++) {
            u64 value = 0;
            for (u64 byte = 0; byte < least(8, bytes - word * 8); byte++) value |= (u64)at[word * 8 + byte] << (8 * byte);
            sum += term(value, word);
        }
    }
    for (u32 step = 1; step < WARP; step *= 2) sum += shuffle_xor(sum, step);
    if (threadIdx.x % WARP == 0) sums[threadIdx.x / WARP] = sum;
    sync_block();
    if (threadIdx.x != 0) return;
    for (u32 warp = 1; warp < 8; warp++) sum += sums[warp];
    atomicAdd(&result[1], sum);
    fence();
    if (atomicAdd(&result[2], 1ull) + 1 < gridDim.x) return;
    fence();
    u64 total = atomicAdd(&result[1], 0ull);
    result[0] = mix64(total ^ bytes * 0xC2B2AE3D27D4EB4Full);
    result[1] = 0;
    result[2] = 0;
}
