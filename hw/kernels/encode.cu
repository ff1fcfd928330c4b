// From a plain format to one with scales, in one pass over the source where a group fits a block's registers.
//
// `refused` holds the least index of an element that is not finite, or all ones: such a block has no copy in these
// formats, and what was written is worth nothing.
#include "numbers.cuh"

// The largest magnitude, as bits: magnitudes order as their bits do.
DEVICE u32 peak_bits(const f32 (&values)[8]) {
    u32 peak = 0;
    for (u32 i = 0; i < 8; i++) peak = larger(peak, bits_of(values[i]) & 0x7fffffff);
    return peak;
}

DEVICE void refuse(const f32 (&values)[8], u64 first, u64* refused) {
    for (u32 i = 0; i < 8; i++) {
        if (is_finite(values[i])) continue;
        atomicMin(refused, first + i);
        return;
    }
}

// Stores the codes of a unit's elements that lie in `begin .. end`. Four-bit groups begin at a unit, so only a row of
// bytes can begin within one.
template <class E>
DEVICE void store_codes(u8* copy, u64 first, u64 begin, u64 end, const f32 (&values)[8], f32 by) {
    u8 codes[8];
    for (u32 i = 0; i < 8; i++) codes[i] = first + i < end ? E::code(values[i], by) : 0;
    if (first >= begin && first + 8 <= end) {
        u32 low = 0, high = 0;
        for (u32 i = 0; i < 4; i++) {
            low |= (u32)codes[i] << (E::BITS * i);
            high |= (u32)codes[i + 4] << (E::BITS * i);
        }
        if (E::BITS == 8) *(u32x2*)(copy + first) = {{low, high}};
        if (E::BITS == 4) *(u32*)(copy + first / 2) = low | high << 16;
    } else if (E::BITS == 8) {
        for (u32 i = 0; i < 8; i++) {
            if (first + i >= begin && first + i < end) copy[first + i] = codes[i];
        }
    } else {
        for (u32 i = 0; i < 8; i += 2) {
            if (first + i < end) copy[(first + i) / 2] = (u8)(codes[i] | codes[i + 1] << 4);
        }
    }
}

template <class E>
DEVICE void store_scale(u8* at, u32 stored) {
    if (E::SCALE == 4) store_u32(at, stored);
    if (E::SCALE == 2) store_u16(at, (u16)stored);
    if (E::SCALE == 1) *at = (u8)stored;
}

// Small groups: eight elements a thread, a group in a few neighbouring lanes.
template <class E, u32 GROUP, class Source>
DEVICE void encode_small_groups(const u8* source, u8* copy, u64 elements, u64* refused) {
    const u32 LANES = GROUP / 8;
    u64 unit = blockIdx.x * 256ull + threadIdx.x, first = unit * 8;
    f32 values[8];
    load_unit<Source>(source, first, 0, elements, values);
    u32 peak = peak_bits(values);
    if (peak >= 0x7f800000) refuse(values, first, refused);
    for (u32 step = 1; step < LANES; step *= 2) peak = larger(peak, shuffle_xor(peak, step));
    Scaling scaling = E::scaling(of_bits(peak));
    store_codes<E>(copy, first, 0, elements, values, scaling.by);
    if (unit % LANES == 0 && first < elements) {
        store_scale<E>(copy + plane_bytes<E>(elements) + unit / LANES * E::SCALE, scaling.stored);
    }
}

// The largest of a block of 256 threads.
DEVICE u32 largest_of_block(u32 value) {
    SHARED u32 largest[8];
    for (u32 step = 1; step < WARP; step *= 2) value = larger(value, shuffle_xor(value, step));
    if (threadIdx.x % WARP == 0) largest[threadIdx.x / WARP] = value;
    sync_block();
    for (u32 warp = 0; warp < 8; warp++) value = larger(value, largest[warp]);
    return value;
}

// Large groups: one a block, kept in registers between finding its peak and coding it.
template <class E, u32 GROUP, class Source>
DEVICE void encode_large_group(const u8* source, u8* copy, u64 elements, u64* refused) {
    const u32 UNITS = GROUP / (256 * 8);
    f32 values[UNITS][8];
    u64 first = blockIdx.x * (u64)GROUP + threadIdx.x * 8;
    u32 peak = 0;
#pragma unroll
    for (u32 unit = 0; unit < UNITS; unit++) load_unit<Source>(source, first + unit * 2048, 0, elements, values[unit]);
#pragma unroll
    for (u32 unit = 0; unit < UNITS; unit++) {
        u32 here = peak_bits(values[unit]);
        if (here >= 0x7f800000) refuse(values[unit], first + unit * 2048, refused);
        peak = larger(peak, here);
    }
    Scaling scaling = E::scaling(of_bits(largest_of_block(peak)));
#pragma unroll
    for (u32 unit = 0; unit < UNITS; unit++) {
        store_codes<E>(copy, first + unit * 2048, 0, elements, values[unit], scaling.by);
    }
    if (threadIdx.x == 0) {
        store_scale<E>(copy + plane_bytes<E>(elements) + blockIdx.x * (u64)E::SCALE, scaling.stored);
    }
}

// Rows of one matrix of the block: a warp a row, read twice; the second time it comes from a cache.
template <class E, class Source>
DEVICE void encode_rows(const u8* source, u8* copy, u64 elements, u64 first_element, u64 first_row, u64 rows,
                        u64 columns, u64* refused) {
    u64 row = blockIdx.x * 8ull + threadIdx.x / WARP;
    u32 lane = threadIdx.x % WARP;
    u64 begin = first_element + least(row, rows) * columns, end = row < rows ? begin + columns : begin;
    // Units of eight that lie at multiples of eight; the first and the last may be cut.
    u64 from = begin / 8 * 8 + lane * 8;
    u32 peak = 0;
    for (u64 at = from; at < end; at += WARP * 8) {
        f32 values[8];
        load_unit<Source>(source, at, begin, end, values);
        u32 here = peak_bits(values);
        if (here >= 0x7f800000) refuse(values, at, refused);
        peak = larger(peak, here);
    }
    for (u32 step = 1; step < WARP; step *= 2) peak = larger(peak, shuffle_xor(peak, step));
    Scaling scaling = E::scaling(of_bits(peak));
    for (u64 at = from; at < end; at += WARP * 8) {
        f32 values[8];
        load_unit<Source>(source, at, begin, end, values);
        store_codes<E>(copy, at, begin, end, values, scaling.by);
    }
    if (lane == 0 && row < rows) {
        store_scale<E>(copy + plane_bytes<E>(elements) + (first_row + row) * E::SCALE, scaling.stored);
    }
}

template <class E, u32 GROUP, class Source>
DEVICE void encode_groups(const u8* source, u8* copy, u64 elements, u64* refused) {
    if constexpr (GROUP <= 256) {
        encode_small_groups<E, GROUP, Source>(source, copy, elements, refused);
    } else {
        encode_large_group<E, GROUP, Source>(source, copy, elements, refused);
    }
}
template <class F, class Source>
DEVICE void encode_groups_of(const u8* source, u8* copy, u64 elements, u64* refused) {
    encode_groups<typename F::Element, F::GROUP, Source>(source, copy, elements, refused);
}

#define ENCODE_GROUPS(name, source_name, Source, ...)                                                   \
    KERNEL(256, 2, encode_##name##_from_##source_name, const u8* source, u8* copy, u64 elements, u64* refused) { \
        encode_groups_of<__VA_ARGS__, Source>(source, copy, elements, refused);                         \
    }
#define ENCODE_ROWS(name, source_name, Source, ...)                                                     \
    KERNEL(256, 2, encode_##name##_from_##source_name, const u8* source, u8* copy, u64 elements,           \
           u64 first_element, u64 first_row, u64 rows, u64 columns, u64* refused) {                     \
        encode_rows<typename __VA_ARGS__::Element, Source>(source, copy, elements, first_element,       \
                                                           first_row, rows, columns, refused);          \
    }
#define ENCODE_GROUPS_FROM_EACH(name, ...)          \
    ENCODE_GROUPS(name, bf16, Bf16, __VA_ARGS__)    \
    ENCODE_GROUPS(name, fp16, Fp16, __VA_ARGS__)    \
    ENCODE_GROUPS(name, fp32, Fp32, __VA_ARGS__)
#define ENCODE_ROWS_FROM_EACH(name, ...)          \
    ENCODE_ROWS(name, bf16, Bf16, __VA_ARGS__)    \
    ENCODE_ROWS(name, fp16, Fp16, __VA_ARGS__)    \
    ENCODE_ROWS(name, fp32, Fp32, __VA_ARGS__)

GROUP_FORMATS(ENCODE_GROUPS_FROM_EACH)
ROW_FORMATS(ENCODE_ROWS_FROM_EACH)
