// The bodies of the three kernels, compiled by nvcc for the GPU and by g++ for the test that runs them on the CPU.
//
// A body does the work of one thread out of `step`: items first, first + step, first + 2 * step ... What a thread does
// never depends on how many there are, so every launch shape gives the same bits; a test runs many of them.
// Arithmetic and order of sums: edge_wam/kernels/reference.py. Built without fused multiply-add.
#pragma once

#ifdef __CUDACC__
#define EW_BODY __device__ __forceinline__
#else
#define EW_BODY static inline
#endif

typedef long long ew_int;

struct ew_canvas_args {
    int width, height;           // crop, pixels
    int to_width, to_height;     // region of the canvas, pixels
    ew_int row_stride;           // image, bytes from one row to the next; pixels are 3 bytes
    ew_int out_stride;           // canvas, floats from one row to the next
    ew_int plane;                // canvas, floats from one channel to the next
};

EW_BODY ew_int ew_min(ew_int a, ew_int b) { return a < b ? a : b; }
EW_BODY ew_int ew_max(ew_int a, ew_int b) { return a > b ? a : b; }

// One item is one pixel of the region: the exact area average of the crop, normalised. `image` and `out` point at the
// first pixel of the crop and of the region.
EW_BODY void ew_camera_to_canvas(const unsigned char *image, float *out, const ew_canvas_args a, ew_int first,
                                 ew_int step) {
    const ew_int area = (ew_int)a.width * a.height;
    const double divisor = (double)(255 * area);
    for (ew_int item = first; item < (ew_int)a.to_width * a.to_height; item += step) {
        const ew_int ty = item / a.to_width, tx = item % a.to_width;
        const ew_int top = ty * a.height, bottom = top + a.height;  // in units of 1 / to_height of a source row
        const ew_int left = tx * a.width, right = left + a.width;   // in units of 1 / to_width of a source column
        ew_int red = 0, green = 0, blue = 0;
        for (ew_int y = top / a.to_height; y * a.to_height < bottom; ++y) {
            const ew_int tall = ew_min(bottom, (y + 1) * a.to_height) - ew_max(top, y * a.to_height);
            const unsigned char *row = image + y * a.row_stride;
            for (ew_int x = left / a.to_width; x * a.to_width < right; ++x) {
                const ew_int weight = tall * (ew_min(right, (x + 1) * a.to_width) - ew_max(left, x * a.to_width));
                red += weight * row[3 * x];
                green += weight * row[3 * x + 1];
                blue += weight * row[3 * x + 2];
            }
        }
        float *to = out + ty * a.out_stride + tx;
        to[0] = (float)((double)(2 * red - 255 * area) / divisor);
        to[a.plane] = (float)((double)(2 * green - 255 * area) / divisor);
        to[2 * a.plane] = (float)((double)(2 * blue - 255 * area) / divisor);
    }
}

// One item is one number of the chunk [knots, axes]; x has `stride` columns.
EW_BODY void ew_decode_chunk(const float *x, ew_int stride, const double *position, const double *q01,
                             const double *q99, const unsigned char *relative, double *q, ew_int knots, ew_int axes,
                             ew_int first, ew_int step) {
    for (ew_int item = first; item < knots * axes; item += step) {
        const ew_int h = item / axes, d = item % axes;
        const double base = relative[d] ? position[d] : 0.0;
        q[item] = (((double)x[h * stride + d] + 1.0) * 0.5) * (q99[d] - q01[d]) + q01[d] + base;
    }
}

// One item is one of the EW_LANES sums of every EW_LANES-th square. Between this and the folds, threads synchronise.
enum { EW_LANES = 32 };

EW_BODY void ew_surprise_lanes(const float *predicted, const float *observed, const float *scale, double *lane,
                               ew_int tokens, ew_int channels, ew_int first, ew_int step) {
    for (ew_int item = first; item < EW_LANES; item += step) {
        double sum = 0.0;
        for (ew_int i = item; i < tokens * channels; i += EW_LANES) {
            const double scaled = ((double)predicted[i] - (double)observed[i]) / (double)scale[i % channels];
            sum += scaled * scaled;
        }
        lane[item] = sum;
    }
}

// One item is one sum of the lower half; threads synchronise between halves 16, 8, 4, 2, 1.
EW_BODY void ew_surprise_fold(double *lane, ew_int half, ew_int first, ew_int step) {
    for (ew_int item = first; item < half; item += step) lane[item] = lane[item] + lane[item + half];
}
