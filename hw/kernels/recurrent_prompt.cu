// Mamba-2 over prompts, in chunks: sums of the steps, what a chunk adds to a state, the states between chunks, products of b and c,
// outputs; and Mamba-1's scan. As hw/src/recurrent/ssd.rs, chunk.rs and scan.rs define them. Activations are f16, states f32.
#include "recurrent.cuh"

// The logarithms of what has decayed since a chunk began, as two numbers each, `[chunks][heads][chunk]`; a thread a head of a chunk.
KERNEL(256, 4, ssd_cumsum, const f32* dt, const f32* a, f32* high, f32* low, u64 heads, u64 tokens, u64 chunk, u64 chunks) {
    u64 at = blockIdx.x * 256ull + threadIdx.x, head = at % heads;
    if (at >= chunks * heads) return;
    Span span = span_of(at / heads, tokens, chunk);
    double sum = 0.0;
    for (u64 t = 0; t < span.count; t++) {
        sum += (double)dt[(span.first + t) * heads + head] * (double)a[head];
        high[at * chunk + t] = (f32)sum;
        low[at * chunk + t] = (f32)(sum - (double)(f32)sum);
    }
}

// What a chunk's tokens add to a head's state, `[chunks][heads][head_dim][state_dim]`: blockIdx.x is the head of the chunk, y and z
// the 64 rows and columns.
KERNEL(256, 2, ssd_chunk_state, const u16* x, const f32* dt, const u16* b, const f32* high, const f32* low, f32* states, SHAPE,
       u64 tokens, u64 chunk) {
    SHARED f32 weights[MOST_CHUNK];
    u64 head = blockIdx.x % heads, group = group_of(head, heads, groups);
    Span span = span_of(blockIdx.x / heads, tokens, chunk);
    const f32 *h = high + blockIdx.x * chunk, *l = low + blockIdx.x * chunk;
    for (u64 t = threadIdx.x; t < span.count; t += 256) {
        f32 until_end = (h[span.count - 1] - h[t]) + (l[span.count - 1] - l[t]);
        weights[t] = dt[(span.first + t) * heads + head] * expf(until_end);
    }
    u64 p0 = blockIdx.y * SIDE, n0 = blockIdx.z * SIDE;
    const f32* weight = weights;
    auto left = [=](u32 row, u64 t) {
        return p0 + row < head_dim ? half_value(x[((span.first + t) * heads + head) * head_dim + p0 + row]) * weight[t] : 0.0f;
    };
    auto right = [=](u64 t, u32 column) {
        return n0 + column < state_dim ? half_value(b[((span.first + t) * groups + group) * state_dim + n0 + column]) : 0.0f;
    };
    f32 sum[4][4] = {};
    add_product(sum, span.count, left, right);
    for (u32 i = 0; i < 16; i++) {
        u64 p = p0 + threadIdx.x / 16 * 4 + i / 4, n = n0 + threadIdx.x % 16 * 4 + i % 4;
        if (p < head_dim && n < state_dim) states[(blockIdx.x * head_dim + p) * state_dim + n] = sum[i / 4][i % 4];
    }
}

// Turns what each chunk adds into the state before it, and `state`, `[sequences][heads][head_dim][state_dim]`, into that after the
// last; a thread a number. Every `every` chunks, if that is not zero, the state before the chunk is kept in f16 as a checkpoint,
// `[sequences][checkpoints][heads][head_dim][state_dim]`.
KERNEL(256, 4, ssd_pass_states, f32* states, f32* state, const f32* high, u16* kept, u64 every, u64 sequences, u64 heads, u64 tile,
       u64 tokens, u64 chunk) {
    u64 at = blockIdx.x * 256ull + threadIdx.x, numbers = heads * tile, chunks = chunks_of(tokens, chunk);
    if (at >= sequences * numbers) return;
    u64 sequence = at / numbers, within = at % numbers, head = within / tile;
    u64 checkpoints = every == 0 ? 0 : chunks_of(chunks, every);
    f32 number = state[at];
    for (u64 c = 0; c < chunks; c++) {
        u64 of = sequence * chunks + c;
        if (every != 0 && c % every == 0) kept[(sequence * checkpoints + c / every) * numbers + within] = f32_to_half(number);
        f32 added = states[of * numbers + within];
        states[of * numbers + within] = number;
        u64 last = least(chunk, tokens - c * chunk) - 1;
        number = number * expf(high[(of * heads + head) * chunk + last]) + added;
    }
    state[at] = number;
}

// c times b of each pair of tokens of a chunk, `[chunks][groups][chunk][chunk]`; only those of which b is not later count.
KERNEL(256, 2, ssd_pairs, const u16* b, const u16* c, f32* pairs, u64 groups, u64 state_dim, u64 tokens, u64 chunk) {
    u64 group = blockIdx.x % groups, t0 = blockIdx.y * SIDE, s0 = blockIdx.z * SIDE;
    if (s0 > t0) return;
    Span span = span_of(blockIdx.x / groups, tokens, chunk);
    auto left = [=](u32 row, u64 n) {
        return t0 + row < span.count ? half_value(c[((span.first + t0 + row) * groups + group) * state_dim + n]) : 0.0f;
    };
    auto right = [=](u64 n, u32 column) {
        return s0 + column < span.count ? half_value(b[((span.first + s0 + column) * groups + group) * state_dim + n]) : 0.0f;
    };
    f32 sum[4][4] = {};
    add_product(sum, state_dim, left, right);
    for (u32 i = 0; i < 16; i++) {
        u64 t = t0 + threadIdx.x / 16 * 4 + i / 4, s = s0 + threadIdx.x % 16 * 4 + i % 4;
        if (t < span.count && s < span.count) pairs[(blockIdx.x * chunk + t) * chunk + s] = sum[i / 4][i % 4];
    }
}

// The outputs of a chunk, of the state before it and of its own tokens; blockIdx.x is the head of the chunk, y the 64 tokens, z the 64
// rows of the state.
KERNEL(256, 2, ssd_chunk_scan, const u16* x, const f32* dt, const u16* c, const f32* high, const f32* low, const f32* states,
       const f32* pairs, u16* y, SHAPE, u64 tokens, u64 chunk) {
    u64 head = blockIdx.x % heads, group = group_of(head, heads, groups), t0 = blockIdx.y * SIDE, p0 = blockIdx.z * SIDE;
    Span span = span_of(blockIdx.x / heads, tokens, chunk);
    if (t0 >= span.count) return;
    const f32 *h = high + blockIdx.x * chunk, *l = low + blockIdx.x * chunk;
    const f32 *state = states + blockIdx.x * head_dim * state_dim;
    const f32 *pair = pairs + (blockIdx.x / heads * groups + group) * chunk * chunk;
    f32 sum[4][4] = {};
    auto read = [=](u32 row, u64 n) {
        return t0 + row < span.count ? half_value(c[((span.first + t0 + row) * groups + group) * state_dim + n]) : 0.0f;
    };
    auto before = [=](u64 n, u32 column) { return p0 + column < head_dim ? state[(p0 + column) * state_dim + n] : 0.0f; };
    add_product(sum, state_dim, read, before);
    u32 row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    for (u32 i = 0; i < 4; i++) {
        f32 since = t0 + row + i < span.count ? expf(h[t0 + row + i]) : 0.0f;
        for (u32 j = 0; j < 4; j++) sum[i][j] *= since;
    }
    auto masked = [=](u32 of, u64 s) {
        u64 t = t0 + of;
        if (t >= span.count || s > t) return 0.0f;
        return pair[t * chunk + s] * expf((h[t] - h[s]) + (l[t] - l[s])) * dt[(span.first + s) * heads + head];
    };
    auto value = [=](u64 s, u32 of) {
        return p0 + of < head_dim ? half_value(x[((span.first + s) * heads + head) * head_dim + p0 + of]) : 0.0f;
    };
    add_product(sum, least(span.count, t0 + SIDE), masked, value);
    for (u32 i = 0; i < 16; i++) {
        u64 t = t0 + row + i / 4, p = p0 + column + i % 4;
        if (t < span.count && p < head_dim) y[((span.first + t) * heads + head) * head_dim + p] = f32_to_half(sum[i / 4][i % 4]);
    }
}

// Numbers of a row that a lane of selective_scan holds.
#define SCAN_NUMBERS 8u

// Mamba-1 over a prompt: a warp a channel, its row of at most 256 numbers over the lanes; `y` is `[channels][tokens]`.
KERNEL(256, 2, selective_scan, const f32* x, const f32* dt, const f32* b, const f32* c, const f32* a, f32* state, f32* y,
       u64 channels, u64 state_dim, u64 tokens) {
    u64 channel = blockIdx.x * 8ull + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    bool there = channel < channels;
    f32 number[SCAN_NUMBERS] = {}, rate[SCAN_NUMBERS] = {};
    for (u32 i = 0; i < SCAN_NUMBERS; i++) {
        u64 n = lane + i * WARP;
        if (!there || n >= state_dim) continue;
        number[i] = state[channel * state_dim + n];
        rate[i] = a[channel * state_dim + n];
    }
    for (u64 t = 0; t < tokens; t++) {
        f32 step = there ? dt[t * channels + channel] : 0.0f, sum = 0.0f;
        f32 injected = there ? step * x[t * channels + channel] : 0.0f;
        for (u32 i = 0; i < SCAN_NUMBERS; i++) {
            u64 n = lane + i * WARP;
            if (n >= state_dim) break;
            number[i] = expf(step * rate[i]) * number[i] + injected * b[t * state_dim + n];
            sum = fused(number[i], c[t * state_dim + n], sum);
        }
        sum = sum_of_warp(sum);
        if (there && lane == 0) y[channel * tokens + t] = sum;
    }
    for (u32 i = 0; i < SCAN_NUMBERS; i++) {
        u64 n = lane + i * WARP;
        if (there && n < state_dim) state[channel * state_dim + n] = number[i];
    }
}
