// From a format with scales to bf16 or fp32: four units of eight elements a thread, so that several loads are under way.
#include "numbers.cuh"

#define DECODE_UNITS 4

// The codes of a unit, in the low bits of as many bytes or nibbles; zeros from `end` on.
template <class E>
DEVICE u64 load_codes(const u8* copy, u64 first, u64 end) {
    if (first + 8 <= end) {
        if (E::BITS == 4) return *(const u32*)(copy + first / 2);
        u32x2 got = *(const u32x2*)(copy + first);
        return got.word[0] | (u64)got.word[1] << 32;
    }
    u64 codes = 0;
    for (u32 i = 0; i < 8; i++) {
        if (first + i < end) codes |= (u64)code_at<E>(copy, first + i) << (E::BITS * i);
    }
    return codes;
}

template <class E>
DEVICE f32 number_of(u64 codes, u32 place) {
    return E::number((u32)(codes >> (E::BITS * place)) & ((1u << E::BITS) - 1));
}

// Small and large groups alike are a multiple of eight elements: a unit has one scale.
template <class E, u32 GROUP, class Target>
DEVICE void decode_groups(const u8* copy, u8* out, u64 elements) {
    u64 base = blockIdx.x * (256ull * 8 * DECODE_UNITS) + threadIdx.x * 8;
    const u8* scales = copy + plane_bytes<E>(elements);
    u64 codes[DECODE_UNITS];
    f32 scale[DECODE_UNITS];
#pragma unroll
    for (u32 unit = 0; unit < DECODE_UNITS; unit++) {
        u64 first = base + unit * 2048;
        codes[unit] = load_codes<E>(copy, first, elements);
        scale[unit] = first < elements ? scale_at<E>(scales, first / GROUP) : 0.0f;
    }
#pragma unroll
    for (u32 unit = 0; unit < DECODE_UNITS; unit++) {
        f32 values[8];
#pragma unroll
        for (u32 i = 0; i < 8; i++) values[i] = number_of<E>(codes[unit], i) * scale[unit];
        store_unit<Target>(out, base + unit * 2048, 0, elements, values);
    }
}

// Rows of one matrix of the block. A unit may lie in two rows, or in more where rows are short.
template <class E, class Target>
DEVICE void decode_rows(const u8* copy, u8* out, u64 elements, u64 first_element, u64 first_row, u64 rows, u64 columns) {
    u64 end = first_element + rows * columns;
    u64 base = first_element / 8 * 8 + blockIdx.x * (256ull * 8 * DECODE_UNITS) + threadIdx.x * 8;
    const u8* scales = copy + plane_bytes<E>(elements) + first_row * E::SCALE;
    u64 codes[DECODE_UNITS];
#pragma unroll
    for (u32 unit = 0; unit < DECODE_UNITS; unit++) codes[unit] = load_codes<E>(copy, base + unit * 2048, end);
#pragma unroll
    for (u32 unit = 0; unit < DECODE_UNITS; unit++) {
        u64 first = base + unit * 2048;
        if (first >= end) continue;
        u64 inside = first < first_element ? 0 : first - first_element;
        // A division of 32 bits is a quarter of one of 64.
        u64 row = inside >> 32 || columns >> 32 ? inside / columns : (u32)inside / (u32)columns;
        u64 next = first_element + (row + 1) * columns;
        f32 scale = scale_at<E>(scales, row);
        f32 values[8];
#pragma unroll
        for (u32 i = 0; i < 8; i++) {
            while (first + i == next && next < end) {
                row++;
                next += columns;
                scale = scale_at<E>(scales, row);
            }
            values[i] = number_of<E>(codes[unit], i) * scale;
        }
        store_unit<Target>(out, first, first_element, end, values);
    }
}

#define DECODE_GROUPS(name, target_name, Target, ...)                                               \
    KERNEL(256, 4, decode_##name##_to_##target_name, const u8* copy, u8* out, u64 elements) {          \
        decode_groups<typename __VA_ARGS__::Element, __VA_ARGS__::GROUP, Target>(copy, out, elements); \
    }
#define DECODE_ROWS(name, target_name, Target, ...)                                                 \
    KERNEL(256, 4, decode_##name##_to_##target_name, const u8* copy, u8* out, u64 elements,            \
           u64 first_element, u64 first_row, u64 rows, u64 columns) {                               \
        decode_rows<typename __VA_ARGS__::Element, Target>(copy, out, elements, first_element,      \
                                                           first_row, rows, columns);               \
    }
#define DECODE_GROUPS_TO_EACH(name, ...)          \
    DECODE_GROUPS(name, bf16, Bf16, __VA_ARGS__)  \
    DECODE_GROUPS(name, fp32, Fp32, __VA_ARGS__)
#define DECODE_ROWS_TO_EACH(name, ...)          \
    DECODE_ROWS(name, bf16, Bf16, __VA_ARGS__)  \
    DECODE_ROWS(name, fp32, Fp32, __VA_ARGS__)

GROUP_FORMATS(DECODE_GROUPS_TO_EACH)
ROW_FORMATS(DECODE_ROWS_TO_EACH)
