// What the kernels of recurrent layers share: dimensions, chunks of sequences, products of small matrices.
#pragma once
#include "numbers.cuh"

// A Mamba-2 layer: `heads` states of `head_dim` rows and `state_dim` columns; each of `groups` groups of heads shares b and c.
#define SHAPE u64 heads, u64 head_dim, u64 groups, u64 state_dim

// What the kernels have room for.
#define MOST_CHUNK 256u
#define MOST_RING 64u

// The tokens of a chunk. Chunks are counted over all sequences, each of which has as many tokens and begins with a chunk of its own.
struct Span {
    u64 first, count;
};
DEVICE u64 chunks_of(u64 tokens, u64 chunk) { return (tokens + chunk - 1) / chunk; }
DEVICE Span span_of(u64 at, u64 tokens, u64 chunk) {
    u64 chunks = chunks_of(tokens, chunk), first = at % chunks * chunk;
    return {at / chunks * tokens + first, least(chunk, tokens - first)};
}

DEVICE u64 group_of(u64 head, u64 heads, u64 groups) { return head / (heads / groups); }

DEVICE f32 sum_of_warp(f32 value) {
    for (u32 step = WARP / 2; step > 0; step /= 2) value += shuffle_xor(value, step);
    return value;
}

#define SIDE 64u
#define DEPTH 16u

// Adds a product to 64 by 64 sums, of which a thread has four by four: those from row `threadIdx.x / 16 * 4` and column
// `threadIdx.x % 16 * 4` on. `a(row, k)` and `b(k, column)` give the numbers, zero where there is none, for k below `depth`.
template <class A, class B>
DEVICE void add_product(f32 (&sum)[4][4], u64 depth, A a, B b) {
    SHARED f32 left[DEPTH][SIDE + 1], right[DEPTH][SIDE + 1];
    u32 row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    for (u64 from = 0; from < depth; from += DEPTH) {
        sync_block();
        for (u32 i = threadIdx.x; i < DEPTH * SIDE; i += 256) {
            u32 k = i / SIDE, at = i % SIDE;
            left[k][at] = from + k < depth ? a(at, from + k) : 0.0f;
            right[k][at] = from + k < depth ? b(from + k, at) : 0.0f;
        }
        sync_block();
        for (u32 k = 0; k < DEPTH; k++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
#pragma unroll
                for (u32 j = 0; j < 4; j++) sum[i][j] = fused(left[k][row + i], right[k][column + j], sum[i][j]);
            }
        }
    }
}
