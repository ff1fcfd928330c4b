//! Products of small matrices in f32, by `matrixmultiply`: the same for attention and for recurrent layers.

/// A matrix within a slice: element `(row, column)` is at `row * strides[0] + column * strides[1]`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    numbers: &'a [f32],
    strides: [usize; 2],
}

/// Rows that begin `stride` numbers apart.
pub(super) fn rows(numbers: &[f32], stride: usize) -> View<'_> {
    View { numbers, strides: [stride, 1] }
}

/// The same matrix with its rows as columns.
pub(super) fn transposed(numbers: &[f32], stride: usize) -> View<'_> {
    View { numbers, strides: [1, stride] }
}

/// The rows of a product, which begin `stride` numbers apart.
pub(super) struct Out<'a> {
    pub(super) numbers: &'a mut [f32],
    pub(super) stride: usize,
}

/// `out = scale out + a b` for `a` of `m` by `k`, `b` of `k` by `n`.
#[allow(unsafe_code)]
pub(super) fn multiply([m, k, n]: [usize; 3], a: View<'_>, b: View<'_>, scale: f32, out: Out<'_>) {
    let within = |len: usize, [rows, columns]: [usize; 2], strides: [usize; 2]| {
        rows == 0 || columns == 0 || (rows - 1) * strides[0] + (columns - 1) * strides[1] < len
    };
    let all = within(a.numbers.len(), [m, k], a.strides)
        && within(b.numbers.len(), [k, n], b.strides)
        && within(out.numbers.len(), [m, n], [out.stride, 1]);
    assert!(all && n <= out.stride, "a product beyond its matrices");
    let [[a_row, a_column], [b_row, b_column]] =
        [a.strides, b.strides].map(|both| both.map(|by| by as isize));
    // SAFETY: every element that is read or written lies within its slice, and no two of `out` are one, as was just checked.
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            1.0,
            a.numbers.as_ptr(),
            a_row,
            a_column,
            b.numbers.as_ptr(),
            b_row,
            b_column,
            scale,
            out.numbers.as_mut_ptr(),
            out.stride as isize,
            1,
        );
    }
}
