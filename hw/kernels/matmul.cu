// Fused dequantise-and-multiply for decode batches, on tensor cores from the first token on.
//
// What limits whom. Reading at 3.35 TB/s, an H100 must take 14 bytes a cycle and SM: 7 weights of bf16, 26 of int4 with
// its scales, and an SM has 128 lanes to do it with. A product on CUDA cores is one operation a weight and token beside the
// 2 to 3 of unpacking, so int4 would be limited by arithmetic from 2 or 3 tokens on, int8 from 6, bf16 from 16. The tensor
// cores do 8 tokens for an eighth of an operation, and are idle three quarters of the time at full read rate even where 7
// of the 8 tokens are missing. So there is one path. Its loops for 8 tokens have, by the disassembly for sm_90, 2.5
// instructions a weight for bf16 (18 lanes busy at full read rate), 3.3 for int8 (48), 4.1 for int8_g32 (56), 3.5 for
// int4_g32 (91) and 4.5 for mxfp4 (123: there instructions and bandwidth run out together).
//
// Accuracy. Codes are exact in bf16 (int8 has 8 bits, fp8 and the four-bit formats fewer); scales are applied in f32 to
// the sum of 32 products. x, which is f32, goes in as two bf16 numbers whose sum has 16 bits, as do weights of fp16.
//
// Layout. A warp has 16 rows of W, or 32 for four-bit formats, a block eight warps. W is read straight from the copy
// into the registers of mma's first operand: any order of the columns will do if x has the same, so that of lane q of
// four is columns 8q to 8q + 7 of 32. Panels of 128 columns are read one ahead of the arithmetic. x is shared by the
// block, 512 columns at a time. Where rows are few, a matrix is split by columns too (gridDim.z); the last block to
// finish adds the parts up, in order.
//
// `first_element`, `elements` and `columns` are multiples of 32, there are fewer than 2^31 columns, and x begins at
// multiples of 4; matmul_any.cu does the rest.
#include "matmul.cuh"

#define PANEL 128u
#define STAGE 512u
#define WARPS 8u
// Bytes of a token's row of x in shared memory: eight rows of 16 bytes then lie in different banks.
#define X_STRIDE (STAGE * 2 + 64)
#define BF16_ONES 0x3f803f80u

// Four pairs of bf16: the eight weights of one row that a lane has of 32 columns.
struct Pairs {
    u32 pair[4];
};

// How a panel of one row lies in a lane's registers: WORDS of them, `load` reads, `arrange` prepares, `expand` gives
// the pairs of 32 columns, and `rest` what the first pairs leave over where a weight is more than a bf16.

template <class Stored>
struct Words16 {
    static const u32 WORDS = 16, TILES = 1, GROUP = 0;
    static const bool NIBBLES = false;
    DEVICE void load(u32 (&words)[16], const u8* copy, u64 at, u32 q, u32 left) {
        const u8* from = copy + (at + 8 * q) * 2;
#pragma unroll
        for (u32 chunk = 0; chunk < 4; chunk++) {
            u32x4 got = 32 * chunk < left ? stream16(from + 64 * chunk) : u32x4{};
#pragma unroll
            for (u32 i = 0; i < 4; i++) words[4 * chunk + i] = got.word[i];
        }
    }
    DEVICE void arrange(u32 (&)[16], u32) {}
};

struct PanelBf16 : Words16<Bf16> {
    static const bool EXACT = true;
    DEVICE Pairs expand(const u32 (&words)[16], u32 chunk) {
        return {{words[4 * chunk], words[4 * chunk + 1], words[4 * chunk + 2], words[4 * chunk + 3]}};
    }
    DEVICE Pairs rest(const u32 (&)[16], u32) { return {}; }
};

struct PanelFp16 : Words16<Fp16> {
    static const bool EXACT = false;
    DEVICE f32 value(u32 word, u32 odd) { return half_value((u16)(word >> (16 * odd))); }
    DEVICE Pairs expand(const u32 (&words)[16], u32 chunk) {
        Pairs out;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 word = words[4 * chunk + i];
            out.pair[i] = pick_bytes(bits_of(value(word, 0)), bits_of(value(word, 1)), 0x7632);
        }
        return out;
    }
    DEVICE Pairs rest(const u32 (&words)[16], u32 chunk) {
        Pairs out;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 left[2];
#pragma unroll
            for (u32 odd = 0; odd < 2; odd++) {
                f32 all = value(words[4 * chunk + i], odd);
                left[odd] = bits_of(all - of_bits(bits_of(all) & 0xffff0000));
            }
            out.pair[i] = pick_bytes(left[0], left[1], 0x7632);
        }
        return out;
    }
};

template <class E>
struct Words8 {
    static const u32 WORDS = 8, TILES = 1;
    static const bool NIBBLES = false, EXACT = true;
    DEVICE void load(u32 (&words)[8], const u8* copy, u64 at, u32 q, u32 left) {
        const u8* from = copy + at + 8 * q;
#pragma unroll
        for (u32 chunk = 0; chunk < 4; chunk++) {
            u32x2 got = 32 * chunk < left ? stream8(from + 32 * chunk) : u32x2{};
            words[2 * chunk] = got.word[0];
            words[2 * chunk + 1] = got.word[1];
        }
    }
    DEVICE void arrange(u32 (&)[8], u32) {}
    DEVICE Pairs rest(const u32 (&)[8], u32) { return {}; }
};

struct PanelInt8 : Words8<Int8> {
    DEVICE Pairs expand(const u32 (&words)[8], u32 chunk) {
        Pairs out;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            // Places 2i and 2i + 1, each in the low byte of a half. 0x4300 is 128, and a step of its mantissa is 1: the low
            // bits and 128, less 128 or, where the sign is set, 256.
            u32 bytes = pick_bytes(words[2 * chunk + i / 2], 0, i & 1 ? 0x4342 : 0x4140);
            u32 low = masked_or(bytes, 0x007f007f, 0x43004300), less = masked_or(bytes, 0x00800080, 0xc300c300);
            out.pair[i] = bf16_pair_fused(low, BF16_ONES, less);
        }
        return out;
    }
};

struct PanelE4m3 : Words8<E4m3> {
    DEVICE Pairs expand(const u32 (&words)[8], u32 chunk) {
        Pairs out;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            // Each in the high byte of a half. The exponent's bias is 120 less than bf16's; 0x7b80 is 2^120. Subnormal
            // numbers come out right too.
            u32 bytes = pick_bytes(words[2 * chunk + i / 2], 0, i & 1 ? 0x3424 : 0x1404);
            u32 shifted = masked_or(bytes, 0x80008000, bytes >> 4 & 0x07f007f0);
            out.pair[i] = bf16_pair_fused(shifted, 0x7b807b80, 0x80008000);
        }
        return out;
    }
};

// A lane reads 16 bytes, which are all of 32 columns; lanes of four then trade, so that each has its eight of every 32.
// Pairs are places i and i + 4 of eight, and x is shared in that order.
template <class E>
struct Nibbles {
    static const u32 WORDS = 4, TILES = 2;
    static const bool NIBBLES = true, EXACT = true;
    DEVICE void load(u32 (&words)[4], const u8* copy, u64 at, u32 q, u32 left) {
        u32x4 got = 32 * q < left ? stream16(copy + (at + 32 * q) / 2) : u32x4{};
#pragma unroll
        for (u32 i = 0; i < 4; i++) words[i] = got.word[i];
    }
    // A 4 by 4 transposition among four lanes.
    DEVICE void arrange(u32 (&words)[4], u32 q) {
#pragma unroll
        for (u32 step = 1; step < 4; step *= 2) {
            bool upper = q & step;
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                if (i & step) continue;
                u32 got = shuffle_xor(upper ? words[i] : words[i + step], step);
                words[i] = upper ? got : words[i];
                words[i + step] = upper ? words[i + step] : got;
            }
        }
    }
    DEVICE Pairs rest(const u32 (&)[4], u32) { return {}; }
};

struct PanelInt4 : Nibbles<Int4> {
    DEVICE Pairs expand(const u32 (&words)[4], u32 chunk) {
        Pairs out;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            // 128 + code, less 136.
            u32 raised = masked_or(words[chunk] >> (4 * i), 0x000f000f, 0x43004300);
            out.pair[i] = bf16_pair_fused(raised, BF16_ONES, 0xc308c308);
        }
        return out;
    }
};

struct PanelE2m1 : Nibbles<E2m1> {
    DEVICE Pairs expand(const u32 (&words)[4], u32 chunk) {
        Pairs out;
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            // The exponent's bias is 126 less than bf16's; 0x7e80 is 2^126.
            u32 codes = words[chunk], magnitudes = i < 2 ? codes << (6 - 4 * i) : codes >> (4 * i - 6);
            u32 shifted = masked_or(codes << (12 - 4 * i), 0x80008000, magnitudes & 0x01c001c0);
            out.pair[i] = bf16_pair_fused(shifted, 0x7e807e80, 0x80008000);
        }
        return out;
    }
};

// Scales: none, one a group, one a row.
struct Unscaled {
    static const u32 GROUP = 0;
    static const bool BY_ROW = false;
    DEVICE const u8* scales(const Task&) { return nullptr; }
    DEVICE f32 scale(const u8*, u64) { return 1.0f; }
};
template <class E, u32 SIZE>
struct ScaledGroups {
    static const u32 GROUP = SIZE;
    static const bool BY_ROW = false;
    DEVICE const u8* scales(const Task& task) { return (const u8*)task.copy + plane_bytes<E>(task.elements); }
    DEVICE f32 scale(const u8* scales, u64 at) { return aligned_scale_at<E>(scales, at / SIZE); }
};
template <class E>
struct ScaledRows {
    static const u32 GROUP = 0;
    static const bool BY_ROW = true;
    DEVICE const u8* scales(const Task& task) { return (const u8*)task.copy + plane_bytes<E>(task.elements); }
    DEVICE f32 scale(const u8* scales, u64 row) { return aligned_scale_at<E>(scales, row); }
};

// x, which is finite, as a bf16 and what that leaves over, in the order that the format's pairs have.
template <bool NIBBLES>
DEVICE void store_x(u8* high, u8* low, const f32 (&values)[8]) {
    u32x4 first, second;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        f32 a = values[NIBBLES ? i : 2 * i], b = values[NIBBLES ? i + 4 : 2 * i + 1];
        u32 pair = bf16_pair(a, b);
        f32 a_high = of_bits(pair << 16), b_high = of_bits(pair & 0xffff0000);
        first.word[i] = pair;
        second.word[i] = bf16_pair(a - a_high, b - b_high);
    }
    *(u32x4*)high = first;
    *(u32x4*)low = second;
}

// One block's part of a task: rows from `first_row_here`, columns `begin .. end`.
template <class P, class S, u32 TOKENS>
struct Product {
    static const u32 N = TOKENS / 8, M = P::TILES;

    struct Panel {
        u32 words[M][2][P::WORDS];
        f32 scale[M][2];
    };

    // Where the rows of this lane begin in the copy. Those beyond the last one are the last one again.
    struct Lines {
        u64 begin[M][2];
    };
    DEVICE Lines lines(const Task& task, u64 row) {
        Lines at;
#pragma unroll
        for (u32 m = 0; m < M; m++) {
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                u64 mine = least(row + 16 * m + 8 * half + threadIdx.x % WARP / 4, task.rows - 1);
                at.begin[m][half] = task.first_element + mine * task.columns;
            }
        }
        return at;
    }

    // Reads a panel; columns beyond `end` are zeros.
    DEVICE void load(Panel& panel, const u8* copy, const u8* scales, const Lines& at, u32 column, u32 end) {
        u32 q = threadIdx.x % 4, left = column < end ? end - column : 0;
#pragma unroll
        for (u32 m = 0; m < M; m++) {
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                u64 from = at.begin[m][half] + column;
                P::load(panel.words[m][half], copy, from, q, left);
                // Each of four lanes reads the scale of 32 columns.
                if (S::GROUP) panel.scale[m][half] = 32 * q < left ? S::scale(scales, from + 32 * q) : 0.0f;
            }
        }
    }

    // sum += panel times the tokens in shared memory, at `column` of the stage.
    DEVICE void multiply(f32 (&sum)[M][N][4], Panel& panel, const u8* shared, u32 column) {
        u32 lane = threadIdx.x % WARP, g = lane / 4, q = lane % 4;
#pragma unroll
        for (u32 m = 0; m < M; m++) {
            P::arrange(panel.words[m][0], q);
            P::arrange(panel.words[m][1], q);
        }
#pragma unroll
        for (u32 chunk = 0; chunk < PANEL / 32; chunk++) {
            u32x4 high[N], low[N];
#pragma unroll
            for (u32 n = 0; n < N; n++) {
                const u8* at = shared + (8 * n + g) * X_STRIDE + (column + 32 * chunk + 8 * q) * 2;
                high[n] = *(const u32x4*)at;
                low[n] = *(const u32x4*)(at + TOKENS * X_STRIDE);
            }
#pragma unroll
            for (u32 m = 0; m < M; m++) {
                Pairs top = P::expand(panel.words[m][0], chunk), bottom = P::expand(panel.words[m][1], chunk);
                f32 part[N][4];
#pragma unroll
                for (u32 n = 0; n < N; n++) {
                    f32(&into)[4] = S::GROUP ? part[n] : sum[m][n];
                    // A group's sum begins anew.
                    if (S::GROUP) into[0] = into[1] = into[2] = into[3] = 0.0f;
                    add(into, top, bottom, low[n]);
                    add(into, top, bottom, high[n]);
                    if (!P::EXACT) add(into, P::rest(panel.words[m][0], chunk), P::rest(panel.words[m][1], chunk), high[n]);
                }
                if (!S::GROUP) continue;
                f32 upper = shuffle(panel.scale[m][0], lane / 4 * 4 + chunk);
                f32 lower = shuffle(panel.scale[m][1], lane / 4 * 4 + chunk);
#pragma unroll
                for (u32 n = 0; n < N; n++) {
#pragma unroll
                    for (u32 i = 0; i < 4; i++) sum[m][n][i] = fused(part[n][i], i < 2 ? upper : lower, sum[m][n][i]);
                }
            }
        }
    }

    DEVICE void add(f32 (&into)[4], const Pairs& top, const Pairs& bottom, const u32x4& x) {
#pragma unroll
        for (u32 step = 0; step < 4; step += 2) {
            matrix_multiply_add(into, top.pair[step], bottom.pair[step], top.pair[step + 1], bottom.pair[step + 1],
                                x.word[step], x.word[step + 1]);
        }
    }

    // Puts 512 columns of x from `column` into shared memory; zeros where there is no token or column.
    DEVICE void stage(u8* shared, const Task& task, const f32* x, u64 token, u32 column, u32 end) {
#pragma unroll 1
        for (u32 unit = threadIdx.x; unit < TOKENS * (STAGE / 8); unit += WARPS * WARP) {
            u32 t = unit / (STAGE / 8), c = unit % (STAGE / 8) * 8;
            f32 values[8] = {};
            if (token + t < task.tokens && column + c < end) {
                Fp32::load8((const u8*)(x + (token + t) * task.columns + column + c), 0, values);
            }
            u8* high = shared + t * X_STRIDE + c * 2;
            store_x<P::NIBBLES>(high, high + TOKENS * X_STRIDE, values);
        }
    }

    // Writes the sums of TOKENS tokens from `token`.
    DEVICE void store(const f32 (&sum)[M][N][4], const Task& task, u64 row, u64 token, f32* y) {
        u32 lane = threadIdx.x % WARP;
#pragma unroll
        for (u32 m = 0; m < M; m++) {
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                u64 mine = row + 16 * m + 8 * half + lane / 4;
                if (mine >= task.rows) continue;
                f32 scale = S::BY_ROW ? S::scale(S::scales(task), task.first_row + mine) : 1.0f;
#pragma unroll
                for (u32 n = 0; n < N; n++) {
#pragma unroll
                    for (u32 odd = 0; odd < 2; odd++) {
                        u64 t = token + 8 * n + lane % 4 * 2 + odd;
                        if (t < task.tokens) y[task.y + t * task.rows + mine] = sum[m][n][2 * half + odd] * scale;
                    }
                }
            }
        }
    }

    DEVICE void run(const Task& task, const f32* x, f32* y, u32 begin, u32 end) {
        SHARED u32x4 x_pairs[2 * TOKENS * X_STRIDE / 16];
        u8* shared = (u8*)x_pairs;
        const u8 *copy = (const u8*)task.copy, *scales = S::scales(task);
        u64 row = (blockIdx.x * WARPS + threadIdx.x / WARP) * (u64)(16 * M);
        Lines at = lines(task, row);
        for (u64 token = 0; token < task.tokens; token += TOKENS) {
            f32 sum[M][N][4] = {};
            Panel now, next;
            load(now, copy, scales, at, begin, end);
            // Two panels a turn, so that neither is copied; the second may be beyond the end, where x is zero.
            for (u32 column = begin; column < end; column += 2 * PANEL) {
                u32 inside = (column - begin) % STAGE;
                if (inside == 0) {
                    sync_block();
                    stage(shared, task, x + task.x, token, column, end);
                    sync_block();
                }
                load(next, copy, scales, at, column + PANEL, end);
                multiply(sum, now, shared, inside);
                load(now, copy, scales, at, column + 2 * PANEL, end);
                multiply(sum, next, shared, inside + PANEL);
            }
            store(sum, task, row, token, y);
        }
    }
};

// Adds the parts of this block's rows up, if it is the last to finish; the counter is then zero again.
DEVICE void add_parts(const Task& task, u32 rows_here, const f32* parts, u64 numbers, u32* finished, f32* y) {
    SHARED u32 earlier;
    fence();
    sync_block();
    if (threadIdx.x == 0) earlier = atomicAdd(finished, 1u);
    sync_block();
    if (earlier + 1 < gridDim.z) return;
    fence();
    if (threadIdx.x == 0) *finished = 0;
    u64 first = blockIdx.x * (u64)rows_here, rows = least(rows_here, task.rows - first);
    for (u64 i = threadIdx.x; i < rows * task.tokens; i += WARPS * WARP) {
        u64 at = task.y + i / rows * task.rows + first + i % rows;
        f32 sum = 0.0f;
        for (u64 part = 0; part < gridDim.z; part++) sum += load_fresh(parts + part * numbers + at);
        y[at] = sum;
    }
}

// The grid is (blocks of rows, tasks, parts of the columns). With more than one part, `parts` has room for `numbers`
// numbers of y times the parts, and `finished` a zero for each block of rows of each task.
template <class P, class S, u32 TOKENS>
DEVICE void matmul(const Task* tasks, const f32* x, f32* y, f32* parts, u64 numbers, u32* finished) {
    const u32 ROWS = WARPS * 16 * P::TILES;
    Task task = tasks[blockIdx.y];
    if (blockIdx.x * (u64)ROWS >= task.rows) return;
    u32 columns = (u32)task.columns, panels = (columns + PANEL - 1) / PANEL;
    u32 share = (panels + gridDim.z - 1) / gridDim.z * PANEL;
    u32 begin = (u32)least((u64)blockIdx.z * share, columns), end = (u32)least((u64)begin + share, columns);
    bool alone = gridDim.z == 1;
    Product<P, S, TOKENS>::run(task, x, alone ? y : parts + blockIdx.z * numbers, begin, end);
    if (alone) return;
    add_parts(task, ROWS, parts, numbers, finished + blockIdx.y * gridDim.x + blockIdx.x, y);
}

#define MATMUL_TOKENS(name, tokens, P, ...)                                                                  \
    KERNEL(256, 2, matmul_##name##_##tokens, const Task* tasks, const f32* x, f32* y, f32* parts, u64 numbers, \
           u32* finished) {                                                                                  \
        matmul<P, __VA_ARGS__, tokens>(tasks, x, y, parts, numbers, finished);                               \
    }
#define MATMUL(name, P, ...)                  \
    MATMUL_TOKENS(name, 8, P, __VA_ARGS__)    \
    MATMUL_TOKENS(name, 16, P, __VA_ARGS__)

MATMUL(bf16, PanelBf16, Unscaled)
MATMUL(fp16, PanelFp16, Unscaled)
MATMUL(fp8_e4m3, PanelE4m3, ScaledRows<E4m3>)
MATMUL(fp8_e4m3_b128, PanelE4m3, ScaledGroups<E4m3, 16384>)
MATMUL(int8, PanelInt8, ScaledRows<Int8>)
MATMUL(int8_g32, PanelInt8, ScaledGroups<Int8, 32>)
MATMUL(mxfp4, PanelE2m1, ScaledGroups<E2m1, 32>)
MATMUL(int4_g32, PanelInt4, ScaledGroups<Int4, 32>)
MATMUL(int4_g128, PanelInt4, ScaledGroups<Int4, 128>)
