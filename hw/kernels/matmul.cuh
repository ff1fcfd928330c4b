// One matrix of a copy times a few tokens: what the two kinds of matrix kernels are given.
#pragma once
#include "numbers.cuh"

// y[t][r] = sum over c of W[r][c] x[t][c]. W begins at `first_element` of a copy of `elements`, and its first row is row
// `first_row` of the block. `x` and `y` are where the first token's vector lies, in numbers from the launch's x and y;
// the next token's follows at once.
struct Task {
    u64 copy, elements, first_element, first_row, rows, columns, tokens, x, y;
};
