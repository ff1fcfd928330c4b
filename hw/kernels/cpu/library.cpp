// The kernels as a library of the CPU, for tests.
#include "../hotset.cu"

// Launches `name` over a grid of `x` by `y` by `z` blocks; the result is a code of CUDA's driver, 0 if all went well.
extern "C" int hotset_launch(const char* name, u32 x, u32 y, u32 z, u32 threads, void** arguments, int backward) {
    const u32 grid[3] = {x, y, z};
    return cpu::launch(name, grid, threads, arguments, backward != 0);
}

// The names of all kernels, a line each; valid as long as the library.
extern "C" const char* hotset_kernels() {
    static std::string names;
    names.clear();
    for (const auto& kernel : cpu::kernels()) names += kernel.first + "\n";
    return names.c_str();
}
