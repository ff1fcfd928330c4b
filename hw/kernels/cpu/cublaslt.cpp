// cuBLASLt: the one kind of product that Hotset asks it for.
namespace {

struct MatrixLayout {
    int type;
    u64 rows, columns;
    long long leading;
};
struct Description {
    int transposed = 0;
};
// An algorithm, its workspace, whether it will do, and how it fills the device.
struct Heuristic {
    u64 algorithm[8], workspace;
    int state;
    f32 waves;
    int reserved[4];
};
enum { F32 = 0, Bf16 = 14, TransposeA = 3, InternalError = 14, NotSupported = 15 };

bool fits(const MatrixLayout& a, const MatrixLayout& b, const MatrixLayout& d, const Description& how) {
    return how.transposed == 1 && a.type == Bf16 && b.type == Bf16 && d.type == F32 && a.rows == b.rows &&
           a.columns == d.rows && b.columns == d.columns;
}

}  // namespace

// As CALL, with the library's own code for a device that fails.
#define BLAS_CALL(name, ...)      \
    extern "C" int name(__VA_ARGS__) { \
        Lock guard(lock);         \
        if (verdict(#name) != 0) return InternalError;

BLAS_CALL(cublasLtCreate, void** handle) *handle = &streams; END
extern "C" int cublasLtDestroy(void*) { return 0; }
BLAS_CALL(cublasLtMatrixLayoutCreate, void** layout, int type, u64 rows, u64 columns, long long leading)
    *layout = new MatrixLayout{type, rows, columns, leading};
END
extern "C" int cublasLtMatrixLayoutDestroy(void* layout) { delete (MatrixLayout*)layout; return 0; }
BLAS_CALL(cublasLtMatmulDescCreate, void** description, int, int) *description = new Description; END
BLAS_CALL(cublasLtMatmulDescSetAttribute, void* description, int attribute, const void* value, size_t)
    if (attribute == TransposeA) ((Description*)description)->transposed = *(const int*)value;
END
extern "C" int cublasLtMatmulDescDestroy(void* description) { delete (Description*)description; return 0; }
BLAS_CALL(cublasLtMatmulPreferenceCreate, void** preference) *preference = &streams; END
extern "C" int cublasLtMatmulPreferenceSetAttribute(void*, int, const void*, size_t) { return 0; }
extern "C" int cublasLtMatmulPreferenceDestroy(void*) { return 0; }
BLAS_CALL(cublasLtMatmulAlgoGetHeuristic, void*, void* how, void* a, void* b, void*, void* d, void*, int,
          Heuristic* chosen, int* found)
    if (!fits(*(MatrixLayout*)a, *(MatrixLayout*)b, *(MatrixLayout*)d, *(Description*)how)) return NotSupported;
    *chosen = {};
    *found = 1;
END
BLAS_CALL(cublasLtMatmul, void*, void* how, const void*, const u16* a, void* a_layout, const u16* b, void* b_layout,
     const f32* beta, const void*, void*, f32* d, void* d_layout, const void*, void*, size_t, void* stream)
    MatrixLayout m = *(MatrixLayout*)a_layout, x = *(MatrixLayout*)b_layout, y = *(MatrixLayout*)d_layout;
    if (!fits(m, x, y, *(Description*)how) || ((u64)a | (u64)b | (u64)d) % 16 != 0) return NotSupported;
    f32 before = *beta;
    int device = ((Stream*)stream)->device;
    return submit(stream, [=] {
        u64 read = m.rows * m.columns * 2, written = y.rows * y.columns * 4;
        if (!allocated(device, (u64)a, read) || !allocated(device, (u64)d, written)) return (int)BadAddress;
        Opened opened(device);
        for (u64 row = 0; row < y.rows; row++) {
            for (u64 token = 0; token < y.columns; token++) {
                double sum = 0;
                for (u64 k = 0; k < m.rows; k++) {
                    sum += (double)bf16_to_f32(a[row * m.leading + k]) * bf16_to_f32(b[token * x.leading + k]);
                }
                f32* out = d + token * y.leading + row;
                *out = (f32)sum + (before == 0 ? 0 : before * *out);
            }
        }
        return 0;
    });
END
