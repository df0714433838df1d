# cython: boundscheck=False, wraparound=False, cdivision=True
"""The knots of a chunk as the wire carries them: equal to ``firmware_bridge/host/knots.py`` bit for bit.

A chunk is made ten times a second, so its code is never in the caches: a score of numpy calls on 112 numbers then take
200 us where this takes 10.
"""

from cpython.buffer cimport Py_buffer, PyBUF_FORMAT, PyBUF_STRIDED_RO, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.math cimport floor, rint

cdef enum:
    LOW = 0  # rows of the table: see KnotBounds
    HIGH = 1
    LSB = 2
    STEP_LOW = 3
    STEP_HIGH = 4
    ROWS = 5

cdef double MICRO = 1e6


cdef inline void put(unsigned char *out, long long value, int width) noexcept nogil:
    """Little endian, two's complement."""
    cdef int i
    for i in range(width):
        out[i] = <unsigned char>((value >> (8 * i)) & 0xFF)


cdef Py_ssize_t convert(Py_buffer *knots, const double *table, bint compact, unsigned char *out) noexcept nogil:
    """Index of the first number that is none or lies outside the limits, or -1."""
    cdef Py_ssize_t knot, axis
    cdef Py_ssize_t axes = knots.shape[1]
    cdef int width = 2 if compact else 4
    cdef double value, step
    for knot in range(knots.shape[0]):
        for axis in range(axes):
            value = (<double *>(<char *>knots.buf + knot * knots.strides[0] + axis * knots.strides[1]))[0]
            value = rint(value * MICRO)
            if not (value >= table[LOW * axes + axis] and value <= table[HIGH * axes + axis]):
                return knot * axes + axis
            if compact:
                step = table[LSB * axes + axis]
                value = floor((2.0 * value + step) / (2.0 * step))
                if value < table[STEP_LOW * axes + axis]:
                    value = table[STEP_LOW * axes + axis]
                if value > table[STEP_HIGH * axes + axis]:
                    value = table[STEP_HIGH * axes + axis]
            put(out, <long long>value, width)
            out += width
    return -1


def encode(q, table, bint compact):
    """See ``knots.encode``."""
    cdef Py_buffer knots
    cdef Py_buffer bounds
    cdef Py_ssize_t refused
    PyObject_GetBuffer(q, &knots, PyBUF_STRIDED_RO | PyBUF_FORMAT)
    try:
        PyObject_GetBuffer(table, &bounds, PyBUF_STRIDED_RO | PyBUF_FORMAT)
        try:
            if (
                knots.ndim != 2 or bounds.ndim != 2 or knots.format != b"d" or bounds.format != b"d"
                or bounds.shape[0] != ROWS or bounds.shape[1] != knots.shape[1]
                or bounds.strides[1] != 8 or bounds.strides[0] != 8 * bounds.shape[1]
            ):
                raise ValueError("encode() takes float64 [H, D] and the table of KnotBounds")
            samples = PyBytes_FromStringAndSize(NULL, knots.shape[0] * knots.shape[1] * (2 if compact else 4))
            refused = convert(&knots, <const double *>bounds.buf, compact, <unsigned char *>PyBytes_AS_STRING(samples))
        finally:
            PyBuffer_Release(&bounds)
    finally:
        PyBuffer_Release(&knots)
    return samples if refused < 0 else refused
