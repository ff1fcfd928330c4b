// What a model does between its matrix products.
#include "numbers.cuh"

// out = silu(gate) * up, number by number.
KERNEL(256, 4, silu_mul, const f32* gate, const f32* up, f32* out, u64 numbers) {
    u64 at = blockIdx.x * 256ull + threadIdx.x;
    if (at >= numbers) return;
    out[at] = gate[at] / (1.0f + expf(-gate[at])) * up[at];
}

// out[i] = x[token_of[i]] for rows of `columns` numbers; blockIdx.x is i.
KERNEL(256, 4, gather, const f32* x, const u32* token_of, f32* out, u64 columns) {
    u64 column = blockIdx.y * 256ull + threadIdx.x;
    if (column >= columns) return;
    out[blockIdx.x * columns + column] = x[token_of[blockIdx.x] * columns + column];
}

// out[t] = sum over k of weight[t][k] y[row_of[t][k]], in the order of k, so that every run gives the same; blockIdx.x is t.
KERNEL(256, 4, combine, const f32* y, const u32* row_of, const f32* weight, f32* out, u64 chosen, u64 columns) {
    u64 column = blockIdx.y * 256ull + threadIdx.x;
    if (column >= columns) return;
    f32 sum = 0.0f;
    for (u64 k = blockIdx.x * chosen; k < (blockIdx.x + 1) * chosen; k++) {
        sum = fused(weight[k], y[row_of[k] * columns + column], sum);
    }
    out[blockIdx.x * columns + column] = sum;
}

// x as two bf16, high and what that leaves over, for products of a library's.
KERNEL(256, 4, split_bf16, const f32* x, u16* high, u16* low, u64 numbers) {
    u64 at = blockIdx.x * 256ull + threadIdx.x;
    if (at >= numbers) return;
    high[at] = f32_to_bf16(x[at]);
    low[at] = f32_to_bf16(x[at] - bf16_to_f32(high[at]));
}
