// bf16_packed, tile by tile. For n elements a copy is
//
//   n bytes              sign and mantissa
//   ceil(3n / 8) bytes   codes of the exponents, three bits each; 7 says that the exponent has no code
//   8 bytes              the seven exponents that have one, and a zero
//   4 bytes a tile       exponents without a code before this tile of 4096 elements
//   a byte each          the exponents without a code
//   zeros                up to ceil(45n / 32) bytes
//
// Encoding takes five launches: histogram, table, split, scan, escapes. `work` is 256 counters, zero before the first
// launch and after the last, then a word for all exponents without a code. A block so small that the table and the offsets
// do not fit is not launched at all.
#include "numbers.cuh"

#define TILE 4096ull
#define CODED 7u

struct Layout {
    u64 codes, table, offsets, escapes, bytes, tiles;
};
DEVICE Layout layout_of(u64 elements) {
    Layout at;
    at.codes = elements;
    at.table = at.codes + (elements * 3 + 7) / 8;
    at.offsets = at.table + 8;
    at.tiles = (elements + TILE - 1) / TILE;
    at.escapes = at.offsets + 4 * at.tiles;
    at.bytes = (elements * 45 + 31) / 32;
    return at;
}
DEVICE u64 room(const Layout& at) { return at.bytes - at.escapes; }

// The bf16 bits of a tile's unit; `lossy` is set where a value is not one of bf16.
template <class Source>
DEVICE void load_bf16_bits(const u8* source, u64 first, u64 end, u16 (&bits)[8], u64* lossy) {
    f32 values[8];
    load_unit<Source>(source, first, 0, end, values);
    for (u32 i = 0; i < 8; i++) {
        bits[i] = (u16)(bits_of(values[i]) >> 16);
        if (bits_of(values[i]) & 0xffff) atomicMin(lossy, first + i);
    }
}
DEVICE u32 exponent(u16 bits) { return bits >> 7 & 0xff; }

// How often each exponent occurs. A block counts for itself, each warp apart, and adds once.
template <class Source>
DEVICE void histogram(const u8* source, u64 elements, u32* work, u64* lossy) {
    SHARED u32 counts[8][256];
    for (u32 warp = 0; warp < 8; warp++) counts[warp][threadIdx.x] = 0;
    sync_block();
    for (u64 first = (blockIdx.x * 256ull + threadIdx.x) * 8; first < elements; first += gridDim.x * 2048ull) {
        u16 bits[8];
        load_bf16_bits<Source>(source, first, elements, bits, lossy);
        for (u32 i = 0; i < 8; i++) {
            if (first + i < elements) atomicAdd(&counts[threadIdx.x / WARP][exponent(bits[i])], 1u);
        }
    }
    sync_block();
    u32 sum = 0;
    for (u32 warp = 0; warp < 8; warp++) sum += counts[warp][threadIdx.x];
    if (sum > 0) atomicAdd(&work[threadIdx.x], sum);
}

// One block: the seven most frequent exponents, equally frequent ones in ascending order. The counters are cleared.
KERNEL(256, 4, packed_table, u8* copy, u64 elements, u32* work) {
    SHARED u32 counts[256];
    u32 mine = work[threadIdx.x], rank = 0;
    counts[threadIdx.x] = mine;
    sync_block();
    for (u32 other = 0; other < 256; other++) {
        rank += counts[other] > mine || (counts[other] == mine && other < threadIdx.x);
    }
    work[threadIdx.x] = 0;
    Layout at = layout_of(elements);
    if (rank < CODED) copy[at.table + rank] = (u8)threadIdx.x;
    if (threadIdx.x == 0) copy[at.table + CODED] = 0;
}

// The code of every exponent, in shared memory.
DEVICE void share_codes(const u8* table, u8 (&code_of)[256]) {
    code_of[threadIdx.x] = CODED;
    sync_block();
    if (threadIdx.x < CODED) code_of[table[threadIdx.x]] = (u8)threadIdx.x;
    sync_block();
}

// What each thread's predecessors add up to, and the total, over a block of 256.
DEVICE u32 sum_before(u32 value, u32* total) {
    SHARED u32 sums[8];
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, through = value;
    for (u32 step = 1; step < WARP; step *= 2) {
        u32 earlier = shuffle_up(through, step);
        if (lane >= step) through += earlier;
    }
    sync_block();
    if (lane == WARP - 1) sums[warp] = through;
    sync_block();
    u32 before = 0;
    *total = 0;
    for (u32 other = 0; other < 8; other++) {
        if (other < warp) before += sums[other];
        *total += sums[other];
    }
    return before + through - value;
}

// A block a tile: signs and mantissas, codes, and the tile's count of exponents without a code where its offset will be.
template <class Source>
DEVICE void split(const u8* source, u8* copy, u64 elements, u64* lossy) {
    SHARED u8 code_of[256];
    Layout at = layout_of(elements);
    share_codes(copy + at.table, code_of);
    u32 without = 0;
    for (u32 pass = 0; pass < 2; pass++) {
        u64 first = blockIdx.x * TILE + pass * 2048 + threadIdx.x * 8;
        if (first >= elements) continue;
        u16 bits[8];
        load_bf16_bits<Source>(source, first, elements, bits, lossy);
        u32 codes = 0;
        u64 signs = 0;
        for (u32 i = 0; i < 8; i++) {
            u32 code = first + i < elements ? code_of[exponent(bits[i])] : 0;
            without += code == CODED;
            codes |= code << (3 * i);
            signs |= (u64)((bits[i] >> 8 & 0x80) | (bits[i] & 0x7f)) << (8 * i);
        }
        if (first + 8 <= elements) {
            *(u32x2*)(copy + first) = {{(u32)signs, (u32)(signs >> 32)}};
        } else {
            for (u32 i = 0; first + i < elements; i++) copy[first + i] = (u8)(signs >> (8 * i));
        }
        u8* code_bytes = copy + at.codes + first / 8 * 3;
        for (u32 i = 0; i < 3; i++) {
            if (code_bytes + i < copy + at.table) code_bytes[i] = (u8)(codes >> (8 * i));
        }
    }
    u32 total;
    sum_before(without, &total);
    if (threadIdx.x == 0) store_u32(copy + at.offsets + 4 * blockIdx.x, total);
}

// One block: counts become offsets; `work[256]` is the total.
KERNEL(256, 4, packed_scan, u8* copy, u64 elements, u32* work) {
    Layout at = layout_of(elements);
    u32 before = 0;
    for (u64 base = 0; base < at.tiles; base += 256) {
        u64 tile = base + threadIdx.x;
        u8* offset = copy + at.offsets + 4 * tile;
        u32 count = tile < at.tiles ? load_u32(offset) : 0, total;
        u32 earlier = sum_before(count, &total);
        if (tile < at.tiles) store_u32(offset, before + earlier);
        before += total;
    }
    if (threadIdx.x == 0) work[256] = before;
}

// A block a tile: its exponents without a code, and its part of the zeros at the end. Writes nothing beyond the copy
// where there is no room; `work[256]` tells.
template <class Source>
DEVICE void escapes(const u8* source, u8* copy, u64 elements, const u32* work, u64* lossy) {
    SHARED u8 code_of[256];
    Layout at = layout_of(elements);
    share_codes(copy + at.table, code_of);
    u64 offset = load_u32(copy + at.offsets + 4 * blockIdx.x);
    for (u32 pass = 0; pass < 2; pass++) {
        u64 first = blockIdx.x * TILE + pass * 2048 + threadIdx.x * 8;
        u16 bits[8];
        u32 without = 0, total;
        load_bf16_bits<Source>(source, first, elements, bits, lossy);
        for (u32 i = 0; i < 8; i++) without += first + i < elements && code_of[exponent(bits[i])] == CODED;
        u64 place = offset + sum_before(without, &total);
        for (u32 i = 0; i < 8; i++) {
            if (first + i >= elements || code_of[exponent(bits[i])] != CODED) continue;
            if (place < room(at)) copy[at.escapes + place] = (u8)exponent(bits[i]);
            place++;
        }
        offset += total;
    }
    u64 unused = least(at.escapes + work[256], at.bytes), share = (at.bytes - unused + gridDim.x - 1) / gridDim.x;
    u64 begin = unused + blockIdx.x * share, end = least(begin + share, at.bytes);
    for (u64 byte = begin + threadIdx.x; byte < end; byte += 256) copy[byte] = 0;
}

#define PACKED_FROM(name, Source)                                                                             \
    KERNEL(256, 4, packed_histogram_from_##name, const u8* source, u64 elements, u32* work, u64* lossy) {        \
        histogram<Source>(source, elements, work, lossy);                                                     \
    }                                                                                                         \
    KERNEL(256, 4, packed_split_from_##name, const u8* source, u8* copy, u64 elements, u64* lossy) {             \
        split<Source>(source, copy, elements, lossy);                                                         \
    }                                                                                                         \
    KERNEL(256, 4, packed_escapes_from_##name, const u8* source, u8* copy, u64 elements, u32* work, u64* lossy) { \
        escapes<Source>(source, copy, elements, work, lossy);                                                 \
    }
PACKED_FROM(bf16, Bf16)
PACKED_FROM(fp16, Fp16)
PACKED_FROM(fp32, Fp32)

// A block a tile. `corrupt` is the least tile whose offsets do not agree with its codes, or all ones; nothing outside
// the copy is read whatever its bytes are.
KERNEL(256, 4, decode_bf16_packed_to_bf16, const u8* copy, u8* out, u64 elements, u64* corrupt) {
    SHARED u32 exponent_of[8];
    Layout at = layout_of(elements);
    if (threadIdx.x < 8) exponent_of[threadIdx.x] = copy[at.table + threadIdx.x];
    u64 base = blockIdx.x * TILE + threadIdx.x * 8;
    u32 codes[2], without = 0;
#pragma unroll
    for (u32 pass = 0; pass < 2; pass++) {
        u64 first = base + pass * 2048;
        const u8* from = copy + at.codes + first / 8 * 3;
        codes[pass] = 0;
        for (u32 i = 0; i < 3; i++) {
            if (from + i < copy + at.table) codes[pass] |= (u32)from[i] << (8 * i);
        }
        if (first >= elements) codes[pass] = 0;
        if (first + 8 > elements && first < elements) codes[pass] &= (1u << (3 * (elements - first))) - 1;
        // A code of 7 has all three bits set. Both passes are summed at once, in halves of a word.
        u32 sevens = codes[pass] & codes[pass] >> 1 & codes[pass] >> 2 & 0111111111;
        without |= count_ones(sevens) << (16 * pass);
    }
    u32 total;
    u32 before = sum_before(without, &total);
    u64 offset = load_u32(copy + at.offsets + 4 * blockIdx.x), after = offset + (total & 0xffff) + (total >> 16);
    bool last = blockIdx.x + 1 == at.tiles;
    u64 expected = last ? after : load_u32(copy + at.offsets + 4 * (blockIdx.x + 1));
    if (threadIdx.x == 0 && (after != expected || after > room(at) || (blockIdx.x == 0 && offset != 0))) {
        atomicMin(corrupt, (u64)blockIdx.x);
    }
#pragma unroll
    for (u32 pass = 0; pass < 2; pass++) {
        u64 first = base + pass * 2048;
        if (first >= elements) continue;
        u64 place = offset + (pass == 0 ? before & 0xffff : (total & 0xffff) + (before >> 16));
        u16 bits[8];
        bool whole = first + 8 <= elements;
        u32x2 signs = whole ? stream8(copy + first) : u32x2{};
        for (u32 i = 0; i < 8; i++) {
            u32 sign = whole ? signs.word[i / 4] >> (8 * (i % 4)) : first + i < elements ? copy[first + i] : 0;
            u32 code = codes[pass] >> (3 * i) & 7, power = exponent_of[code];
            if (code == CODED) {
                power = place < room(at) ? copy[at.escapes + place] : 0;
                place++;
            }
            bits[i] = (u16)((sign & 0x80) << 8 | power << 7 | (sign & 0x7f));
        }
        if (whole) {
            u32x4 pairs;
            for (u32 i = 0; i < 4; i++) pairs.word[i] = bits[2 * i] | (u32)bits[2 * i + 1] << 16;
            *(u32x4*)(out + first * 2) = pairs;
        } else {
            for (u32 i = 0; first + i < elements; i++) ((u16*)out)[first + i] = bits[i];
        }
    }
}
