// All kernels, as one unit for nvcc, NVRTC and, in tests, a compiler of the CPU.
#include "plain.cu"
#include "encode.cu"
#include "decode.cu"
#include "packed.cu"
#include "checksum.cu"
#include "matmul.cu"
#include "matmul_any.cu"
#include "expert.cu"
