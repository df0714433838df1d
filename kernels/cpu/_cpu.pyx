# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The kernels on the CPU, without the GIL: equal to ``edge_wam/kernels/reference.py`` bit for bit.

Arguments were checked by ``edge_wam.kernels``. Nothing is allocated inside a call but the result.
"""

import numpy as np

from libc.math cimport sqrt
from libc.string cimport memset

cdef enum:
    LARGEST_SIDE = 8192  # of ``edge_wam.kernels``: 8192 * 8192 * 255 fits 64 bits, 8192 * 255 fits 32
    LANES = 32           # of ``reference.surprise``

cdef float[256] NORMALISED
cdef int value
for value in range(256):
    NORMALISED[value] = <float>(<double>(2 * value - 255) / 255.0)


cdef void copy_normalised(const unsigned char *image, Py_ssize_t row_stride, float *out, Py_ssize_t plane,
                          Py_ssize_t out_stride, int width, int height) noexcept nogil:
    """Crop and region of one size: a table look-up per channel."""
    cdef int i, k
    cdef const unsigned char *row
    cdef float *to
    for i in range(height):
        row = image + i * row_stride
        to = out + i * out_stride
        for k in range(width):
            to[k] = NORMALISED[row[3 * k]]
            to[plane + k] = NORMALISED[row[3 * k + 1]]
            to[2 * plane + k] = NORMALISED[row[3 * k + 2]]


cdef void area_average(const unsigned char *image, Py_ssize_t row_stride, float *out, Py_ssize_t plane,
                       Py_ssize_t out_stride, int width, int height, int to_width, int to_height) noexcept nogil:
    """Rows first, into one line of 32-bit sums (a loop that the compiler vectorises), then columns, in 64 bits."""
    cdef unsigned int[3 * LARGEST_SIDE] line
    cdef unsigned int weight
    cdef const unsigned char *row
    cdef float *to
    cdef int i, j, k, t
    cdef long long start, end, low, high, wide, red, green, blue
    cdef long long area = <long long>width * height
    cdef double divisor = <double>(255 * area)
    for i in range(to_height):
        # target row i covers [i * height, (i + 1) * height), source row j [j * to_height, (j + 1) * to_height)
        start = <long long>i * height
        end = start + height
        memset(line, 0, 3 * width * sizeof(unsigned int))
        j = <int>(start // to_height)
        while <long long>j * to_height < end:
            low = max(start, <long long>j * to_height)
            high = min(end, <long long>(j + 1) * to_height)
            weight = <unsigned int>(high - low)
            row = image + j * row_stride
            for k in range(3 * width):
                line[k] += weight * row[k]
            j += 1
        to = out + i * out_stride
        for t in range(to_width):
            start = <long long>t * width
            end = start + width
            red = green = blue = 0
            k = <int>(start // to_width)
            while <long long>k * to_width < end:
                low = max(start, <long long>k * to_width)
                high = min(end, <long long>(k + 1) * to_width)
                wide = high - low
                red += wide * line[3 * k]
                green += wide * line[3 * k + 1]
                blue += wide * line[3 * k + 2]
                k += 1
            to[t] = <float>(<double>(2 * red - 255 * area) / divisor)
            to[plane + t] = <float>(<double>(2 * green - 255 * area) / divisor)
            to[2 * plane + t] = <float>(<double>(2 * blue - 255 * area) / divisor)


def camera_to_canvas(const unsigned char[:, :, :] image, crop, float[:, :, ::1] out, at):
    """See ``edge_wam.kernels.camera_to_canvas``."""
    cdef int x, y, width, height, to_x, to_y, to_width, to_height
    x, y, width, height = crop
    to_x, to_y, to_width, to_height = at
    cdef Py_ssize_t row_stride = image.strides[0]
    cdef Py_ssize_t out_stride = out.shape[2]
    cdef Py_ssize_t plane = out.shape[1] * out.shape[2]
    with nogil:
        if width == to_width and height == to_height:
            copy_normalised(&image[y, x, 0], row_stride, &out[0, to_y, to_x], plane, out_stride, width, height)
        else:
            area_average(&image[y, x, 0], row_stride, &out[0, to_y, to_x], plane, out_stride,
                         width, height, to_width, to_height)


def decode_chunk(const float[:, ::1] x, const double[::1] position, const double[::1] q01, const double[::1] q99,
                 const unsigned char[::1] relative):
    """See ``edge_wam.kernels.decode_chunk``."""
    cdef Py_ssize_t knots = x.shape[0], axes = position.shape[0], h, d
    cdef double base
    result = np.empty((knots, axes), np.float64)
    cdef double[:, ::1] q = result
    with nogil:
        for h in range(knots):
            for d in range(axes):
                base = position[d] if relative[d] else 0.0
                q[h, d] = ((<double>x[h, d] + 1.0) * 0.5) * (q99[d] - q01[d]) + q01[d] + base
    return result


def surprise(const float[:, ::1] predicted, const float[:, ::1] observed, const float[::1] scale):
    """See ``edge_wam.kernels.surprise``."""
    cdef Py_ssize_t tokens = predicted.shape[0], channels = predicted.shape[1], t, c, i = 0
    cdef double[LANES] lane
    cdef double scaled
    cdef int half, k
    with nogil:
        memset(lane, 0, sizeof(lane))
        for t in range(tokens):
            for c in range(channels):
                scaled = (<double>predicted[t, c] - <double>observed[t, c]) / <double>scale[c]
                lane[i % LANES] += scaled * scaled
                i += 1
        half = LANES // 2
        while half:
            for k in range(half):
                lane[k] = lane[k] + lane[k + half]
            half //= 2
    return sqrt(lane[0] / <double>(tokens * channels))
