// Products of any shape, and of fp32: a warp a row, element by element. It serves where matmul.cu's conditions fail,
// which no published model's shapes do, and full precision, which CUDA cores multiply fast enough.
#include "matmul.cuh"

template <class F>
DEVICE void matmul_any(const Task* tasks, const f32* x, f32* y) {
    Task task = tasks[blockIdx.y];
    u64 row = blockIdx.x * 8ull + threadIdx.x / WARP;
    u32 lane = threadIdx.x % WARP;
    if (row >= task.rows) return;
    const u8* copy = (const u8*)task.copy;
    for (u64 token = 0; token < task.tokens; token += 8) {
        f32 sum[8] = {};
        u64 first = task.first_element + row * task.columns;
#pragma unroll 4
        for (u64 column = lane; column < task.columns; column += WARP) {
            f32 weight = F::weight(copy, task.elements, first + column, task.first_row + row);
#pragma unroll
            for (u32 t = 0; t < 8; t++) {
                if (token + t < task.tokens) sum[t] = fused(weight, x[task.x + (token + t) * task.columns + column], sum[t]);
            }
        }
#pragma unroll
        for (u32 t = 0; t < 8; t++) {
            for (u32 step = 1; step < WARP; step *= 2) sum[t] += shuffle_xor(sum[t], step);
            if (lane == t && token + t < task.tokens) y[task.y + (token + t) * task.rows + row] = sum[t];
        }
    }
}

#define MATMUL_ANY(name, ...)                                                             \
    KERNEL(256, 2, matmul_##name##_any, const Task* tasks, const f32* x, f32* y) {           \
        matmul_any<__VA_ARGS__>(tasks, x, y);                                             \
    }
MATMUL_ANY(fp32, Plain<Fp32>)
MATMUL_ANY(bf16, Plain<Bf16>)
MATMUL_ANY(fp16, Plain<Fp16>)
GROUP_FORMATS(MATMUL_ANY)
ROW_FORMATS(MATMUL_ANY)
