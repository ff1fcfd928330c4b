// Blocks by their recipes: base + left x right, matrix by matrix. Every sum is taken in the order of the rank, each product
// and each addition rounded, as the host does it.
#include "numbers.cuh"

#define MERGE_ROWS 4

template <class N>
DEVICE void load_row_unit(const u8* from, u64 first, u64 begin, u64 end, f32 (&values)[8]) {
    if (first % 8 == 0) return load_unit<N>(from, first, begin, end, values);
    for (u32 i = 0; i < 8; i++) values[i] = first + i >= begin && first + i < end ? N::load(from, first + i) : 0.0f;
}
template <class N>
DEVICE void store_row_unit(u8* to, u64 first, u64 begin, u64 end, const f32 (&values)[8]) {
    if (first % 8 == 0) return store_unit<N>(to, first, begin, end, values);
    for (u32 i = 0; i < 8; i++) {
        if (first + i >= begin && first + i < end) N::store(to, first + i, values[i]);
    }
}

// The elements `begin .. end` of a block, as far as they are in the rows `first_row .. last_row` of the matrix that begins at
// `first_element`. Its factors begin at `left`, of `rank` columns, and `right`. A thread makes eight columns of some rows.
template <class N>
DEVICE void merge(const u8* base, const u8* factors, u8* out, u64 begin, u64 end, u64 first_element, u64 columns,
                  u64 first_row, u64 last_row, u64 rank, u64 left, u64 right) {
    u64 units = (columns + 7) / 8, work = blockIdx.x * 256ull + threadIdx.x;
    u64 row = first_row + work / units * MERGE_ROWS, column = work % units * 8;
    if (row >= last_row) return;
    u64 right_end = right + rank * columns;
    f32 sums[MERGE_ROWS][8];
    for (u32 i = 0; i < MERGE_ROWS; i++) {
        u64 line = first_element + (row + i) * columns;
        u64 until = row + i < last_row ? least(end, line + columns) : 0;
        load_row_unit<N>(base, line + column, begin, until, sums[i]);
    }
    for (u64 k = 0; k < rank; k++) {
        f32 values[8];
        load_row_unit<N>(factors, right + k * columns + column, right, right_end, values);
        for (u32 i = 0; i < MERGE_ROWS; i++) {
            f32 by = row + i < last_row ? N::load(factors, left + (row + i) * rank + k) : 0.0f;
            for (u32 j = 0; j < 8; j++) sums[i][j] = sums[i][j] + by * values[j];
        }
    }
    for (u32 i = 0; i < MERGE_ROWS; i++) {
        u64 line = first_element + (row + i) * columns;
        u64 until = row + i < last_row ? least(end, line + columns) : 0;
        store_row_unit<N>(out, line + column, begin, until, sums[i]);
    }
}

#define MERGE(name, N)                                                                                              \
    KERNEL(256, 2, merge_##name, const u8* base, const u8* factors, u8* out, u64 begin, u64 end, u64 first_element, \
           u64 columns, u64 first_row, u64 last_row, u64 rank, u64 left, u64 right) {                              \
        merge<N>(base, factors, out, begin, end, first_element, columns, first_row, last_row, rank, left, right);  \
    }

MERGE(bf16, Bf16)
MERGE(fp16, Fp16)
MERGE(fp32, Fp32)
