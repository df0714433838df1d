// A stand-in for libcuda.so.1 that runs the kernels' bodies on the CPU: what the driver is given (pointers, sizes,
// launch shape, argument order) is what a GPU would be given. Threads run in a shuffled order, so a result that
// depends on their order shows. Device pointers are host pointers offset by a constant: using one for the other crashes.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "bodies.h"

static const uint64_t DEVICE = 1ull << 56;
static int live_allocations = 0;
static bool context_current = false;

template <typename T> static T *device(void *argument) {
    return reinterpret_cast<T *>(*static_cast<uint64_t *>(argument) - DEVICE);
}
template <typename T> static T value(void *argument) { return *static_cast<T *>(argument); }

template <typename Body> static void each_thread(long long threads, Body body) {
    static std::mt19937 random(1);
    std::vector<long long> order(threads);
    for (long long i = 0; i < threads; ++i) order[i] = i;
    for (long long i = threads - 1; i > 0; --i) std::swap(order[i], order[random() % (i + 1)]);
    for (long long thread : order) body(thread, threads);
}

extern "C" {
int fake_allocations() { return live_allocations; }
int cuInit(unsigned) { return 0; }
int cuDeviceGet(int *out, int index) { *out = 0; return index == 0 ? 0 : 101; }
int cuDevicePrimaryCtxRetain(void **context, int) { *context = &context_current; return 0; }
int cuCtxSetCurrent(void *context) { context_current = context == &context_current; return context_current ? 0 : 201; }
int cuGetErrorName(int code, const char **text) { *text = code == 201 ? "CUDA_ERROR_INVALID_CONTEXT" : "CUDA_ERROR"; return 0; }
int cuModuleLoadData(void **module, const void *image) {
    if (*static_cast<const uint32_t *>(image) != 0xBA55ED50u) return 200;  // the magic number of a fatbin
    *module = &live_allocations;
    return 0;
}
int cuModuleGetFunction(void **function, void *, const char *name) {
    if (!strcmp(name, "ew_camera_to_canvas_kernel")) *function = reinterpret_cast<void *>(1);
    else if (!strcmp(name, "ew_decode_chunk_kernel")) *function = reinterpret_cast<void *>(2);
    else if (!strcmp(name, "ew_surprise_kernel")) *function = reinterpret_cast<void *>(3);
    else return 500;
    return 0;
}
int cuMemAlloc_v2(uint64_t *pointer, size_t size) {
    if (!context_current || !size) return 201;
    *pointer = reinterpret_cast<uint64_t>(malloc(size)) + DEVICE;
    ++live_allocations;
    return 0;
}
int cuMemFree_v2(uint64_t pointer) { free(reinterpret_cast<void *>(pointer - DEVICE)); --live_allocations; return 0; }
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size) {
    memcpy(reinterpret_cast<void *>(to - DEVICE), from, size);
    return 0;
}
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size) {
    memcpy(to, reinterpret_cast<void *>(from - DEVICE), size);
    return 0;
}
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned, void *, void **p, void **) {
    if (gy != 1 || gz != 1 || by != 1 || bz != 1 || !gx || !bx || bx > 1024) return 1;
    const long long threads = static_cast<long long>(gx) * bx;
    switch (reinterpret_cast<uintptr_t>(function)) {
    case 1:
        each_thread(threads, [&](long long first, long long step) {
            ew_camera_to_canvas(device<unsigned char>(p[0]), device<float>(p[1]), value<ew_canvas_args>(p[2]), first, step);
        });
        return 0;
    case 2:
        each_thread(threads, [&](long long first, long long step) {
            ew_decode_chunk(device<float>(p[0]), value<ew_int>(p[1]), device<double>(p[2]), device<double>(p[3]),
                            device<double>(p[4]), device<unsigned char>(p[5]), device<double>(p[6]), value<ew_int>(p[7]),
                            value<ew_int>(p[8]), first, step);
        });
        return 0;
    case 3: {
        if (gx != 1) return 1;  // the lanes are shared by one block
        const ew_int tokens = value<ew_int>(p[4]), channels = value<ew_int>(p[5]);
        double lane[EW_LANES];
        each_thread(threads, [&](long long first, long long step) {
            ew_surprise_lanes(device<float>(p[0]), device<float>(p[1]), device<float>(p[2]), lane, tokens, channels, first, step);
        });
        for (ew_int half = EW_LANES / 2; half; half /= 2)
            each_thread(threads, [&](long long first, long long step) { ew_surprise_fold(lane, half, first, step); });
        *device<double>(p[3]) = std::sqrt(lane[0] / static_cast<double>(tokens * channels));
        return 0;
    }
    }
    return 400;
}
}
