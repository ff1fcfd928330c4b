// States in eight and four bits, as hw/src/recurrent/quantised.rs defines them, byte for byte: a head's codes, the scales of groups of
// 32, the scales of columns; each head's `stride` bytes after the last one's. Rows are a multiple of 32 numbers.
#include "recurrent.cuh"

template <class E>
DEVICE u64 coded_bytes(u64 numbers) { return plane_bytes<E>(numbers) + numbers / 32 * E::SCALE; }

// The scale of each column, its root mean square; blockIdx.x is the head. The host adds up in this order too.
template <class E>
DEVICE void state_columns(const f32* states, u8* tiles, u64 stride, u64 head_dim, u64 state_dim) {
    u64 numbers = head_dim * state_dim;
    u8* columns = tiles + blockIdx.x * stride + coded_bytes<E>(numbers);
    for (u64 n = threadIdx.x; n < state_dim; n += 256) {
        f32 sum = 0.0f;
        for (u64 p = 0; p < head_dim; p++) {
            f32 number = states[blockIdx.x * numbers + p * state_dim + n];
            sum = sum + number * number;
        }
        store_u16(columns + n * 2, f32_to_half(sqrtf(sum / (f32)head_dim)));
    }
}

// Codes a state over its columns' scales; blockIdx.x is the head, y the 2048 numbers. `refused` as for other encoders.
template <class E>
DEVICE void state_encode(const f32* states, u8* tiles, u64 stride, u64 head_dim, u64 state_dim, u64* refused) {
    u64 numbers = head_dim * state_dim, unit = blockIdx.y * 256ull + threadIdx.x, first = unit * 8;
    u8* tile = tiles + blockIdx.x * stride;
    const u8* columns = tile + coded_bytes<E>(numbers);
    f32 values[8];
    load_unit<Fp32>((const u8*)(states + blockIdx.x * numbers), first, 0, numbers, values);
    for (u32 i = 0; i < 8; i++) {
        f32 scale = first < numbers ? half_value(load_u16(columns + (first + i) % state_dim * 2)) : 0.0f;
        values[i] = values[i] * (scale == 0.0f ? 0.0f : 1.0f / scale);
    }
    u32 peak = peak_bits(values);
    if (peak >= 0x7f800000) refuse(values, blockIdx.x * numbers + first, refused);
    for (u32 step = 1; step < 4; step *= 2) peak = larger(peak, shuffle_xor(peak, step));
    Scaling scaling = E::scaling(of_bits(peak));
    store_codes<E>(tile, first, 0, numbers, values, scaling.by);
    if (unit % 4 == 0 && first < numbers) store_scale<E>(tile + plane_bytes<E>(numbers) + unit / 4 * E::SCALE, scaling.stored);
}

// The numbers of codes; blockIdx.x is the head, y the 2048 numbers.
template <class E>
DEVICE void state_decode(const u8* tiles, u64 stride, f32* states, u64 head_dim, u64 state_dim) {
    u64 numbers = head_dim * state_dim, first = (blockIdx.y * 256ull + threadIdx.x) * 8;
    if (first >= numbers) return;
    const u8* tile = tiles + blockIdx.x * stride;
    const u8 *scales = tile + plane_bytes<E>(numbers), *columns = tile + coded_bytes<E>(numbers);
    f32 scale = scale_at<E>(scales, first / 32);
    for (u32 i = 0; i < 8; i++) {
        f32 column = half_value(load_u16(columns + (first + i) % state_dim * 2));
        states[blockIdx.x * numbers + first + i] = E::number(code_at<E>(tile, first + i)) * scale * column;
    }
}

#define STATE_CODES(name, E)                                                                                              \
    KERNEL(256, 4, state_columns_##name, const f32* states, u8* tiles, u64 stride, u64 head_dim, u64 state_dim) {          \
        state_columns<E>(states, tiles, stride, head_dim, state_dim);                                                     \
    }                                                                                                                     \
    KERNEL(256, 4, state_encode_##name, const f32* states, u8* tiles, u64 stride, u64 head_dim, u64 state_dim, u64* refused) { \
        state_encode<E>(states, tiles, stride, head_dim, state_dim, refused);                                             \
    }                                                                                                                     \
    KERNEL(256, 4, state_decode_##name, const u8* tiles, u64 stride, f32* states, u64 head_dim, u64 state_dim) {           \
        state_decode<E>(tiles, stride, states, head_dim, state_dim);                                                      \
    }
STATE_CODES(int8, Int8)
STATE_CODES(int4, Int4)
