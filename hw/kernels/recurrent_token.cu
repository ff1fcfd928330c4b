// Mamba-2 token by token: states that are written at every token, states in eight bits with a ring of inputs, and what a token adds. As
// hw/src/recurrent/step.rs, gated.rs and backlog.rs define them. Inputs are those of one token of each sequence, x, b and c in f16.
#include "recurrent.cuh"

// One token further: blockIdx.x is the head of a sequence, a warp takes a row of its state at a time.
template <class N>
DEVICE void ssm_step(u8* states, const u16* x, const f32* dt, const u16* b, const u16* c, const f32* a, f32* y, SHAPE) {
    u64 at = blockIdx.x, head = at % heads, lane = threadIdx.x % WARP;
    u64 shared = (at / heads * groups + group_of(head, heads, groups)) * state_dim;
    f32 decay = expf(dt[at] * a[head]);
    for (u64 p = threadIdx.x / WARP; p < head_dim; p += 8) {
        u64 row = (at * head_dim + p) * state_dim;
        f32 injected = dt[at] * half_value(x[at * head_dim + p]), sum = 0.0f;
        for (u64 n = lane; n < state_dim; n += WARP) {
            f32 number = N::load(states, row + n) * decay + injected * half_value(b[shared + n]);
            N::store(states, row + n, number);
            sum = fused(number, half_value(c[shared + n]), sum);
        }
        sum = sum_of_warp(sum);
        if (lane == 0) y[at * head_dim + p] = sum;
    }
}

#define SSM_STEP(name, N)                                                                                              \
    KERNEL(256, 4, ssm_step_##name, u8* states, const u16* x, const f32* dt, const u16* b, const u16* c, const f32* a, \
           f32* y, SHAPE) {                                                                                            \
        ssm_step<N>(states, x, dt, b, c, a, y, heads, head_dim, groups, state_dim);                                    \
    }
SSM_STEP(fp32, Fp32)
SSM_STEP(fp16, Fp16)

// The outputs of heads in eight bits with `kept` tokens in a ring, of which the last has just come: the codes as they are, times what
// has decayed since, and what each kept token still adds. blockIdx.x is the head of a sequence, whose codes, scales of groups of
// 32 and scales of columns begin `stride` bytes after the last one's. The ring is `[sequences][room]` tokens of x, dt and b.
KERNEL(256, 4, ssm_read_int8, const u8* tiles, u64 stride, const u16* ring_x, const f32* ring_dt, const u16* ring_b, u64 kept,
       u64 room, const u16* c, const f32* a, f32* y, SHAPE) {
    SHARED f32 weights[MOST_RING + 1], products[MOST_RING];
    u64 at = blockIdx.x, sequence = at / heads, head = at % heads, group = group_of(head, heads, groups);
    u64 warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, numbers = head_dim * state_dim;
    const u8* tile = tiles + at * stride;
    const u8 *scales = tile + numbers, *columns = scales + numbers / 32 * 2;
    const u16* read = c + (sequence * groups + group) * state_dim;
    // Entry j is the weight of kept token j; the last entry is the decay of the codes.
    if (threadIdx.x <= kept) {
        f32 since = 0.0f;
        u64 from = threadIdx.x < kept ? threadIdx.x + 1 : 0;
        for (u64 j = kept; j-- > from;) since += ring_dt[(sequence * room + j) * heads + head];
        f32 own = threadIdx.x < kept ? ring_dt[(sequence * room + threadIdx.x) * heads + head] : 1.0f;
        weights[threadIdx.x] = own * expf(a[head] * since);
    }
    for (u64 j = warp; j < kept; j += 8) {
        const u16* b = ring_b + ((sequence * room + j) * groups + group) * state_dim;
        f32 sum = 0.0f;
        for (u64 n = lane; n < state_dim; n += WARP) sum = fused(half_value(b[n]), half_value(read[n]), sum);
        sum = sum_of_warp(sum);
        if (lane == 0) products[j] = sum;
    }
    sync_block();
    for (u64 p = warp; p < head_dim; p += 8) {
        f32 sum = 0.0f;
        for (u64 n = lane; n < state_dim; n += WARP) {
            u64 element = p * state_dim + n;
            f32 number = Int8::number(tile[element]) * Int8::scale(load_u16(scales + element / 32 * 2));
            sum = fused(number, half_value(load_u16(columns + n * 2)) * half_value(read[n]), sum);
        }
        sum = sum_of_warp(sum) * weights[kept];
        if (lane != 0) continue;
        for (u64 j = 0; j < kept; j++) {
            f32 value = half_value(ring_x[((sequence * room + j) * heads + head) * head_dim + p]);
            sum = fused(weights[j] * products[j], value, sum);
        }
        y[at * head_dim + p] = sum;
    }
}

// States before the kept tokens to states after them, token by token as stepping does; a thread a number.
KERNEL(256, 4, ring_replay, f32* states, const u16* ring_x, const f32* ring_dt, const u16* ring_b, u64 kept, u64 room, const f32* a,
       u64 sequences, SHAPE) {
    u64 at = blockIdx.x * 256ull + threadIdx.x, n = at % state_dim, row = at / state_dim, head = row / head_dim % heads;
    u64 sequence = row / head_dim / heads, group = group_of(head, heads, groups);
    if (sequence >= sequences) return;
    f32 number = states[at];
    for (u64 j = 0; j < kept; j++) {
        u64 token = sequence * room + j;
        f32 dt = ring_dt[token * heads + head];
        f32 injected = dt * half_value(ring_x[(token * heads + head) * head_dim + row % head_dim]);
        number = number * expf(dt * a[head]) + half_value(ring_b[(token * groups + group) * state_dim + n]) * injected;
    }
    states[at] = number;
}

// The length of what a token adds to a head's state, `dt |x| |b|`; a warp a head of a sequence.
KERNEL(256, 4, injection_norms, const u16* x, const f32* dt, const u16* b, f32* norms, u64 sequences, SHAPE) {
    u64 at = blockIdx.x * 8ull + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    f32 x_sum = 0.0f, b_sum = 0.0f;
    bool there = at < sequences * heads;
    u64 shared = (at / heads * groups + group_of(at % heads, heads, groups)) * state_dim;
    for (u64 p = lane; there && p < head_dim; p += WARP) {
        f32 value = half_value(x[at * head_dim + p]);
        x_sum = fused(value, value, x_sum);
    }
    for (u64 n = lane; there && n < state_dim; n += WARP) {
        f32 value = half_value(b[shared + n]);
        b_sum = fused(value, value, b_sum);
    }
    x_sum = sum_of_warp(x_sum);
    b_sum = sum_of_warp(b_sum);
    if (there && lane == 0) norms[at] = dt[at] * sqrtf(x_sum) * sqrtf(b_sum);
}
