// Numbers as the host's codec codes them: the same operations in the same order, so the same bytes.
#pragma once
#include "platform.cuh"

DEVICE bool is_finite(f32 value) { return (bits_of(value) & 0x7fffffff) < 0x7f800000; }

// f16 to f32; a NaN keeps its payload.
DEVICE f32 half_to_f32(u16 bits) {
    bool nan = (bits & 0x7fff) > 0x7c00;
    return nan ? of_bits((u32)(bits & 0x8000) << 16 | 0x7f800000 | (u32)(bits & 0x3ff) << 13) : half_value(bits);
}

// f32 to f16, nearest even; finite values beyond the range become the largest one.
DEVICE u16 f32_to_half(f32 value) {
    u32 bits = bits_of(value), magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return (u16)((bits >> 16 & 0x8000) | 0x7e00 | (bits >> 13 & 0x3ff));
    if (magnitude == 0x7f800000) return (u16)((bits >> 16 & 0x8000) | 0x7c00);
    return half_nearest(fminf(fmaxf(value, -65504.0f), 65504.0f));
}

DEVICE f32 bf16_to_f32(u16 bits) { return of_bits((u32)bits << 16); }

// f32 to bf16, nearest even; finite values beyond the range become the largest one, a NaN stays one.
DEVICE u16 f32_to_bf16(f32 value) {
    u32 bits = bits_of(value), magnitude = bits & 0x7fffffff;
    if (magnitude >= 0x7f800000) return (u16)(bits >> 16 | (magnitude & 0xffff ? 0x40 : 0));
    if (magnitude >= 0x7f7f8000) return (u16)((bits >> 16 & 0x8000) | 0x7f7f);
    return (u16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// The formats without scales. `load8` reads eight elements of which the first is a multiple of eight.
struct Bf16 {
    static const u64 BYTES = 2;
    DEVICE f32 load(const u8* from, u64 at) { return bf16_to_f32(((const u16*)from)[at]); }
    DEVICE void store(u8* to, u64 at, f32 value) { ((u16*)to)[at] = f32_to_bf16(value); }
    DEVICE void load8(const u8* from, u64 first, f32 (&values)[8]) {
        u32x4 got = *(const u32x4*)(from + first * BYTES);
        for (u32 i = 0; i < 8; i++) values[i] = of_bits(i & 1 ? got.word[i / 2] & 0xffff0000 : got.word[i / 2] << 16);
    }
    DEVICE void store8(u8* to, u64 first, const f32 (&values)[8]) {
        u32x4 out;
        for (u32 i = 0; i < 4; i++) {
            out.word[i] = f32_to_bf16(values[2 * i]) | (u32)f32_to_bf16(values[2 * i + 1]) << 16;
        }
        *(u32x4*)(to + first * BYTES) = out;
    }
};

struct Fp16 {
    static const u64 BYTES = 2;
    DEVICE f32 load(const u8* from, u64 at) { return half_to_f32(((const u16*)from)[at]); }
    DEVICE void store(u8* to, u64 at, f32 value) { ((u16*)to)[at] = f32_to_half(value); }
    DEVICE void load8(const u8* from, u64 first, f32 (&values)[8]) {
        u32x4 got = *(const u32x4*)(from + first * BYTES);
        for (u32 i = 0; i < 8; i++) values[i] = half_to_f32((u16)(got.word[i / 2] >> (16 * (i & 1))));
    }
    DEVICE void store8(u8* to, u64 first, const f32 (&values)[8]) {
        u32x4 out;
        for (u32 i = 0; i < 4; i++) {
            out.word[i] = f32_to_half(values[2 * i]) | (u32)f32_to_half(values[2 * i + 1]) << 16;
        }
        *(u32x4*)(to + first * BYTES) = out;
    }
};

struct Fp32 {
    static const u64 BYTES = 4;
    DEVICE f32 load(const u8* from, u64 at) { return ((const f32*)from)[at]; }
    DEVICE void store(u8* to, u64 at, f32 value) { ((f32*)to)[at] = value; }
    DEVICE void load8(const u8* from, u64 first, f32 (&values)[8]) {
        const u32x4* four = (const u32x4*)(from + first * BYTES);
        u32x4 low = four[0], high = four[1];
        for (u32 i = 0; i < 4; i++) {
            values[i] = of_bits(low.word[i]);
            values[i + 4] = of_bits(high.word[i]);
        }
    }
    DEVICE void store8(u8* to, u64 first, const f32 (&values)[8]) {
        u32x4* four = (u32x4*)(to + first * BYTES);
        for (u32 half = 0; half < 2; half++) {
            u32x4 out;
            for (u32 i = 0; i < 4; i++) out.word[i] = bits_of(values[4 * half + i]);
            four[half] = out;
        }
    }
};

// Work is handed out in units of eight elements that lie at multiples of eight. Elements of the unit at `first` that are
// not in `begin .. end` read as zeros and are not written.
template <class Source>
DEVICE void load_unit(const u8* from, u64 first, u64 begin, u64 end, f32 (&values)[8]) {
    if (first >= begin && first + 8 <= end) {
        Source::load8(from, first, values);
    } else {
        for (u32 i = 0; i < 8; i++) {
            values[i] = first + i >= begin && first + i < end ? Source::load(from, first + i) : 0.0f;
        }
    }
}
template <class Target>
DEVICE void store_unit(u8* to, u64 first, u64 begin, u64 end, const f32 (&values)[8]) {
    if (first >= begin && first + 8 <= end) {
        Target::store8(to, first, values);
    } else {
        for (u32 i = 0; i < 8; i++) {
            if (first + i >= begin && first + i < end) Target::store(to, first + i, values[i]);
        }
    }
}

// What a group stores for its largest magnitude, and by what its values are divided or multiplied.
struct Scaling {
    u32 stored;
    f32 by;
};

// The elements of the formats with scales: BITS an element, SCALE bytes a scale.

struct E4m3 {
    static const u32 BITS = 8, SCALE = 4;
    DEVICE Scaling scaling(f32 peak) {
        f32 step = peak / 448.0f;
        return {bits_of(step), step};
    }
    DEVICE u8 code(f32 value, f32 step) {
        if (step == 0.0f) return 0;
        value = value / step;
        f32 magnitude = fminf(of_bits(bits_of(value) & 0x7fffffff), 448.0f);
        u32 bits = bits_of(magnitude);
        u32 normal = ((bits + 0x7ffff + (bits >> 20 & 1)) >> 20) - ((127 - 7) << 3);
        // Adding this leaves multiples of 2^-9, the smallest step, in the low bits of the mantissa.
        u32 subnormal = bits_of(magnitude + 24576.0f);
        u32 nearest = magnitude < 0.015625f ? subnormal : normal;
        return (u8)((nearest & 0x7f) | (bits_of(value) >> 24 & 0x80));
    }
    DEVICE f32 number(u32 code) {
        if ((code & 0x7f) == 0x7f) return of_bits(0x7fc00000);
        // The exponent's bias is 120 less than that of f32.
        return of_bits((code & 0x80) << 24 | (code & 0x7f) << 20) * 0x1p120f;
    }
    DEVICE f32 scale(u32 stored) { return of_bits(stored); }
};

// A scale as f16; values are divided by the scale before it was rounded.
DEVICE Scaling integer_scaling(f32 peak, f32 largest) {
    f32 exact = fminf(peak / largest, 65504.0f);
    u16 stored = f32_to_half(exact);
    return {stored, stored == 0 ? 0.0f : 1.0f / exact};
}
// The low bits of the nearest integer, ties to even, in two's complement.
DEVICE u8 nearest_integer(f32 value, f32 largest) {
    return (u8)bits_of(fminf(fmaxf(value, -largest), largest) + 12582912.0f);
}

struct Int8 {
    static const u32 BITS = 8, SCALE = 2;
    DEVICE Scaling scaling(f32 peak) { return integer_scaling(peak, 127.0f); }
    DEVICE u8 code(f32 value, f32 inverse) { return nearest_integer(value * inverse, 127.0f); }
    DEVICE f32 number(u32 code) { return (f32)(signed char)code; }
    DEVICE f32 scale(u32 stored) { return half_value((u16)stored); }
};

struct Int4 {
    static const u32 BITS = 4, SCALE = 2;
    DEVICE Scaling scaling(f32 peak) { return integer_scaling(peak, 7.0f); }
    DEVICE u8 code(f32 value, f32 inverse) { return (u8)(nearest_integer(value * inverse, 7.0f) + 8); }
    DEVICE f32 number(u32 code) { return (f32)((i32)code - 8); }
    DEVICE f32 scale(u32 stored) { return half_value((u16)stored); }
};

struct E2m1 {
    static const u32 BITS = 4, SCALE = 1;
    // 2 to the power of `scale - 127`; NaN for 255.
    DEVICE f32 power(u32 scale) { return of_bits(larger(scale << 23, 0x00400000) | (scale + 1) >> 8 << 22); }
    DEVICE Scaling scaling(f32 peak) {
        u32 exponent = bits_of(peak) >> 23;
        exponent = exponent < 2 ? 0 : exponent - 2;
        return {exponent, power(254 - exponent)};
    }
    DEVICE u8 code(f32 value, f32 inverse) {
        value = value * inverse;
        f32 size = of_bits(bits_of(value) & 0x7fffffff);
        u32 steps = (size > 0.25f) + (size >= 0.75f) + (size > 1.25f) + (size >= 1.75f) + (size > 2.5f) +
                    (size >= 3.5f) + (size > 5.0f);
        return (u8)(steps | (bits_of(value) >> 28 & 8));
    }
    DEVICE f32 number(u32 code) {
        // The exponent's bias is 126 less than that of f32.
        return of_bits((code & 8) << 28 | (code & 7) << 22) * 0x1p126f;
    }
    DEVICE f32 scale(u32 stored) { return power(stored); }
};

// The code of one element of a copy.
template <class E>
DEVICE u32 code_at(const u8* copy, u64 at) {
    if (E::BITS == 8) return copy[at];
    return copy[at / 2] >> (4 * (at & 1)) & 15;
}

// Where a copy's scales begin.
template <class E>
DEVICE u64 plane_bytes(u64 elements) { return E::BITS == 8 ? elements : (elements + 1) / 2; }

// Scale number `index` of those from `scales` on, which may be at an odd address.
template <class E>
DEVICE f32 scale_at(const u8* scales, u64 index) {
    const u8* at = scales + index * E::SCALE;
    return E::scale(E::SCALE == 4 ? load_u32(at) : E::SCALE == 2 ? load_u16(at) : *at);
}
// The same where the scales begin at a multiple of four.
template <class E>
DEVICE f32 aligned_scale_at(const u8* scales, u64 index) {
    const u8* at = scales + index * E::SCALE;
    return E::scale(E::SCALE == 4 ? read_u32(at) : E::SCALE == 2 ? read_u16(at) : read_u8(at));
}

// How scales lie over elements, for formats made of them below: one for every SIZE elements, or one for every row.
template <class E, u32 SIZE>
struct Groups {
    typedef E Element;
    static const u32 GROUP = SIZE;
    DEVICE f32 weight(const u8* copy, u64 elements, u64 at, u64) {
        return E::number(code_at<E>(copy, at)) * scale_at<E>(copy + plane_bytes<E>(elements), at / SIZE);
    }
};

template <class E>
struct Rows {
    typedef E Element;
    static const u32 GROUP = 0;
    DEVICE f32 weight(const u8* copy, u64 elements, u64 at, u64 row) {
        return E::number(code_at<E>(copy, at)) * scale_at<E>(copy + plane_bytes<E>(elements), row);
    }
};

template <class Source>
struct Plain {
    DEVICE f32 weight(const u8* copy, u64, u64 at, u64) { return Source::load(copy, at); }
};

// The formats with scales, by name: FORMAT(name, type).
#define GROUP_FORMATS(FORMAT)                            \
    FORMAT(int8_g32, Groups<Int8, 32>)              \
    FORMAT(mxfp4, Groups<E2m1, 32>)                 \
    FORMAT(int4_g32, Groups<Int4, 32>)              \
    FORMAT(int4_g128, Groups<Int4, 128>)            \
    FORMAT(fp8_e4m3_b128, Groups<E4m3, 16384>)
#define ROW_FORMATS(FORMAT)          \
    FORMAT(fp8_e4m3, Rows<E4m3>)     \
    FORMAT(int8, Rows<Int8>)
