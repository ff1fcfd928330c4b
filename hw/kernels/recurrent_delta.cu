// Gated delta nets token by token, as hw/src/recurrent/delta.rs defines them. A head's state has a row a value channel and a column a
// key channel. Inputs are those of one token of each sequence: values, keys and queries in f16; beta and the gates' logarithms in f32.
#include "recurrent.cuh"

// One token further: blockIdx.x is the head of a sequence, a warp takes a row of its state at a time.
template <class N>
DEVICE void delta_step(u8* states, const u16* values, const f32* beta, const u16* keys, const u16* queries, const f32* gates, f32* y,
                       SHAPE) {
    u64 at = blockIdx.x, head = at % heads, lane = threadIdx.x % WARP;
    u64 shared = (at / heads * groups + group_of(head, heads, groups)) * state_dim;
    f32 decay = expf(gates[at]);
    for (u64 p = threadIdx.x / WARP; p < head_dim; p += 8) {
        u64 row = (at * head_dim + p) * state_dim;
        f32 known = 0.0f, sum = 0.0f;
        for (u64 n = lane; n < state_dim; n += WARP) {
            known = fused(N::load(states, row + n), half_value(keys[shared + n]), known);
        }
        known = sum_of_warp(known) * decay;
        f32 missing = beta[at] * (half_value(values[at * head_dim + p]) - known);
        for (u64 n = lane; n < state_dim; n += WARP) {
            f32 number = N::load(states, row + n) * decay + missing * half_value(keys[shared + n]);
            N::store(states, row + n, number);
            sum = fused(number, half_value(queries[shared + n]), sum);
        }
        sum = sum_of_warp(sum);
        if (lane == 0) y[at * head_dim + p] = sum;
    }
}

#define DELTA_STEP(name, N)                                                                                                    \
    KERNEL(256, 4, delta_step_##name, u8* states, const u16* values, const f32* beta, const u16* keys, const u16* queries,     \
           const f32* gates, f32* y, SHAPE) {                                                                                  \
        delta_step<N>(states, values, beta, keys, queries, gates, y, heads, head_dim, groups, state_dim);                      \
    }
DELTA_STEP(fp32, Fp32)
DELTA_STEP(fp16, Fp16)
