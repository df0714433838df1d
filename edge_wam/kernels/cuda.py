"""The kernels on an NVIDIA GPU, through the driver's C interface: no CUDA toolkit and no further package is needed.

Arrays are copied to the device and back for each call, so for one camera this is slower than Cython on a discrete
GPU; it is the path whose results the tests compare with the reference, and the one that a device-resident pipeline
builds on. Loaded by :func:`edge_wam.kernels.use`, never by an import.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from edge_wam.errors import EdgeWamError
from edge_wam.kernels.reference import F32, F64, U8, Bool, Rectangle

FATBIN = Path(__file__).with_name("edge_wam_kernels.fatbin")
THREADS = 128
"""Per block; any number gives the same bits."""


class _CanvasArgs(ctypes.Structure):
    """``ew_canvas_args`` of kernels/cuda/bodies.h."""

    _fields_ = (
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("to_width", ctypes.c_int),
        ("to_height", ctypes.c_int),
        ("row_stride", ctypes.c_longlong),
        ("out_stride", ctypes.c_longlong),
        ("plane", ctypes.c_longlong),
    )


class _Buffer:
    """Device memory that grows and is kept, so that no call allocates once the sizes have been seen."""

    def __init__(self, backend: CudaBackend) -> None:
        self._backend = backend
        self._capacity = 0
        self.pointer = ctypes.c_uint64(0)

    def hold(self, size: int) -> ctypes.c_uint64:
        """At least ``size`` bytes; what they hold is not kept."""
        if size > self._capacity:
            if self._capacity:
                self._backend.call("cuMemFree_v2", self.pointer)
                self._capacity = 0
            self._backend.call("cuMemAlloc_v2", ctypes.byref(self.pointer), ctypes.c_size_t(size))
            self._capacity = size
        return self.pointer

    def load(self, array: np.ndarray[Any, Any]) -> ctypes.c_uint64:
        """A copy of a C-contiguous array."""
        pointer = self.hold(array.nbytes)
        self._backend.call(
            "cuMemcpyHtoD_v2", pointer, array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes)
        )
        return pointer

    def store(self, array: np.ndarray[Any, Any]) -> None:
        """Copy back into a C-contiguous array; waits for the kernel before it."""
        self._backend.call(
            "cuMemcpyDtoH_v2", array.ctypes.data_as(ctypes.c_void_p), self.pointer, ctypes.c_size_t(array.nbytes)
        )


class CudaBackend:
    """The first GPU's primary context with the module loaded. Not for two threads at once."""

    def __init__(self, driver: str, fatbin: Path) -> None:
        try:
            image = fatbin.read_bytes()
        except OSError as error:
            raise EdgeWamError(
                f"the CUDA kernels were not built: {fatbin}: {error.strerror}",
                remedy="run `make kernels` on a machine with nvcc",
            ) from error
        try:
            self._driver = ctypes.CDLL(driver)
        except OSError as error:
            raise EdgeWamError("no NVIDIA driver on this machine", remedy="use the cython backend") from error
        self.call("cuInit", ctypes.c_uint(0))
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self._enter()
        module = ctypes.c_void_p()
        self.call("cuModuleLoadData", ctypes.byref(module), image)
        self._kernels = {name: ctypes.c_void_p() for name in ("camera_to_canvas", "decode_chunk", "surprise")}
        for name, function in self._kernels.items():
            self.call("cuModuleGetFunction", ctypes.byref(function), module, f"ew_{name}_kernel".encode())
        self._buffers = [_Buffer(self) for _ in range(6)]

    def call(self, name: str, *arguments: Any) -> None:
        """One function of the driver.

        Raises:
            EdgeWamError: the driver answered with an error.
        """
        code = getattr(self._driver, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            known = self._driver.cuGetErrorName(ctypes.c_int(code), ctypes.byref(text)) == 0 and text.value
            meaning = text.value.decode() if known and text.value else "unknown error"
            raise EdgeWamError(f"the NVIDIA driver refuses {name}: {meaning} ({code})", remedy="run nvidia-smi")

    def _enter(self) -> None:
        self.call("cuCtxSetCurrent", self._context)  # contexts belong to threads

    def _launch(self, name: str, items: int, *arguments: Any) -> None:
        blocks = 1 if name == "surprise" else (items + THREADS - 1) // THREADS
        pointers = (ctypes.c_void_p * len(arguments))(
            *(ctypes.cast(ctypes.pointer(argument), ctypes.c_void_p) for argument in arguments)
        )
        shape = [ctypes.c_uint(n) for n in (blocks, 1, 1, THREADS, 1, 1, 0)]
        self.call("cuLaunchKernel", self._kernels[name], *shape, None, pointers, None)

    def camera_to_canvas(self, image: U8, crop: Rectangle, out: F32, at: Rectangle, /) -> None:
        """See :func:`edge_wam.kernels.camera_to_canvas`."""
        self._enter()
        x, y, width, height = crop
        to_x, to_y, to_width, to_height = at
        source = np.ascontiguousarray(image[y : y + height, x : x + width])
        region = np.empty((3, to_height, to_width), np.float32)
        pixels, canvas = self._buffers[:2]
        args = _CanvasArgs(width, height, to_width, to_height, 3 * width, to_width, to_width * to_height)
        items = to_width * to_height
        self._launch("camera_to_canvas", items, pixels.load(source), canvas.hold(region.nbytes), args)
        canvas.store(region)
        out[:, to_y : to_y + to_height, to_x : to_x + to_width] = region

    def decode_chunk(self, x: F32, position: F64, q01: F64, q99: F64, relative: Bool, /) -> F64:
        """See :func:`edge_wam.kernels.decode_chunk`."""
        self._enter()
        q = np.empty((len(x), len(position)), np.float64)
        if q.size == 0:
            return q
        inputs: tuple[np.ndarray[Any, Any], ...] = (x, position, q01, q99, relative)
        loaded = [buffer.load(array) for buffer, array in zip(self._buffers, inputs, strict=False)]
        sizes = [ctypes.c_longlong(n) for n in (x.shape[1], len(x), len(position))]
        result = self._buffers[5]
        self._launch("decode_chunk", q.size, loaded[0], sizes[0], *loaded[1:], result.hold(q.nbytes), *sizes[1:])
        result.store(q)
        return q

    def surprise(self, predicted: F32, observed: F32, scale: F32, /) -> float:
        """See :func:`edge_wam.kernels.surprise`."""
        self._enter()
        loaded = [
            buffer.load(array) for buffer, array in zip(self._buffers, (predicted, observed, scale), strict=False)
        ]
        value = np.empty(1, np.float64)
        result = self._buffers[5]
        sizes = [ctypes.c_longlong(n) for n in predicted.shape]
        self._launch("surprise", 1, *loaded, result.hold(value.nbytes), *sizes)
        result.store(value)
        return float(value[0])


def open_backend(driver: str = "libcuda.so.1", fatbin: Path = FATBIN) -> CudaBackend:
    """Load the kernels onto the first GPU.

    Raises:
        EdgeWamError: no driver, no GPU, or the kernels were not built.
    """
    return CudaBackend(driver, fatbin)
