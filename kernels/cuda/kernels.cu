// The kernels' entry points on the GPU: which thread does which item. Loaded by edge_wam/kernels/cuda.py.
#include "bodies.h"

#define EW_FIRST ((ew_int)blockIdx.x * blockDim.x + threadIdx.x)
#define EW_STEP ((ew_int)gridDim.x * blockDim.x)

extern "C" __global__ void ew_camera_to_canvas_kernel(const unsigned char *image, float *out, ew_canvas_args args) {
    ew_camera_to_canvas(image, out, args, EW_FIRST, EW_STEP);
}

extern "C" __global__ void ew_decode_chunk_kernel(const float *x, ew_int stride, const double *position,
                                                  const double *q01, const double *q99, const unsigned char *relative,
                                                  double *q, ew_int knots, ew_int axes) {
    ew_decode_chunk(x, stride, position, q01, q99, relative, q, knots, axes, EW_FIRST, EW_STEP);
}

// One block of any number of threads.
extern "C" __global__ void ew_surprise_kernel(const float *predicted, const float *observed, const float *scale,
                                              double *result, ew_int tokens, ew_int channels) {
    __shared__ double lane[EW_LANES];
    ew_surprise_lanes(predicted, observed, scale, lane, tokens, channels, threadIdx.x, blockDim.x);
    for (ew_int half = EW_LANES / 2; half; half /= 2) {
        __syncthreads();
        ew_surprise_fold(lane, half, threadIdx.x, blockDim.x);
    }
    __syncthreads();
    if (threadIdx.x == 0) *result = sqrt(lane[0] / (double)(tokens * channels));
}
