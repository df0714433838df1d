"""The hot per-frame arithmetic, and the choice of what runs it: CUDA, Cython or numpy, all bit-identical.

The best backend of the host (Cython where it was compiled, else numpy) is active from the import on. CUDA is taken
only when :func:`use` asks for it at start-up: opening a CUDA context takes tenths of a second, which must not happen
inside a control loop. Importing this package is safe on any machine.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from edge_wam.errors import ContractError, EdgeWamError
from edge_wam.kernels import reference
from edge_wam.kernels.reference import F32, F64, U8, Bool, Rectangle

BackendName = Literal["auto", "cuda", "cython", "numpy"]
LARGEST_SIDE = 8192
"""Widest and highest crop, pixels: keeps every integer sum of the resize within its type."""


class Backend(Protocol):
    """What a backend provides; arguments arrive checked and contiguous."""

    def camera_to_canvas(self, image: U8, crop: Rectangle, out: F32, at: Rectangle, /) -> None: ...

    def decode_chunk(self, x: F32, position: F64, q01: F64, q99: F64, relative: Bool, /) -> F64: ...

    def surprise(self, predicted: F32, observed: F32, scale: F32, /) -> float: ...


def _open(name: str) -> Backend:
    """One backend by name; EdgeWamError (with the remedy) when it is not usable here."""
    if name == "numpy":
        return reference
    if name == "cython":
        try:
            from edge_wam.kernels import _cpu
        except ImportError as error:
            raise EdgeWamError(
                f"the compiled kernels cannot be loaded: {error}", remedy="build them: make kernels"
            ) from error
        return _cpu
    from edge_wam.kernels import cuda

    return cuda.open_backend()


def _best(order: tuple[str, ...]) -> tuple[str, Backend]:
    for name in order:
        try:
            return name, _open(name)
        except EdgeWamError:
            continue
    return "numpy", reference


_name, _active = _best(("cython",))


def backend() -> str:
    """The name of the active backend: ``cuda``, ``cython`` or ``numpy``."""
    return _name


def use(name: BackendName) -> str:
    """Switch the backend of this process and return its name; ``auto``: the first of CUDA, Cython, numpy that works.

    Raises:
        EdgeWamError: the backend that was asked for by name is not usable on this machine.
    """
    global _name, _active
    _name, _active = _best(("cuda", "cython")) if name == "auto" else (name, _open(name))
    return _name


def _inside(what: str, rectangle: Rectangle, width: int, height: int) -> None:
    x, y, w, h = rectangle
    if x < 0 or y < 0 or w < 1 or h < 1 or x + w > width or y + h > height:
        raise ContractError(
            f"{what} (x {x}, y {y}, width {w}, height {h}) leaves the {width}x{height} image", expected="inside it"
        )
    if max(w, h) > LARGEST_SIDE:
        raise ContractError(f"{what} is {w}x{h} pixels", expected=f"at most {LARGEST_SIDE} on a side")


def camera_to_canvas(image: U8, crop: Rectangle, out: F32, at: Rectangle) -> None:
    """Crop, resize and normalise one camera image into its region of the model's canvas.

    The resize is an exact area average (anti-aliased; a plain copy where crop and region have one size), the
    normalisation ``v / 127.5 - 1``. Pixels of ``out`` outside the region are left alone.

    Args:
        image: uint8 [height, width, 3], RGB.
        crop: the part that is used, in image pixels.
        out: float32 [3, canvas height, canvas width], C-contiguous.
        at: where it lands, in canvas pixels.

    Raises:
        ContractError: wrong type or shape, or a rectangle that leaves its image.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ContractError(f"image is {image.dtype} {image.shape}", expected="uint8 [height, width, 3] RGB")
    if out.dtype != np.float32 or out.ndim != 3 or out.shape[0] != 3 or not out.flags.c_contiguous:
        raise ContractError(f"canvas is {out.dtype} {out.shape}", expected="contiguous float32 [3, height, width]")
    if not out.flags.writeable:
        raise ContractError("canvas is read-only", expected="an array that may be written")
    _inside("crop", crop, image.shape[1], image.shape[0])
    _inside("canvas region", at, out.shape[2], out.shape[1])
    if image.strides[1:] != (3, 1):  # rows may lie anywhere (a flipped view), pixels may not
        image = np.ascontiguousarray(image)
    _active.camera_to_canvas(image, crop, out, at)


def decode_chunk(x: F32, position: F64, q01: F64, q99: F64, relative: Bool) -> F64:
    """The model's normalised actions as absolute axis positions: the inverse of q01/q99 normalisation to [-1, 1].

    NaN and infinity pass through; nothing is clipped: refusing is the guard's work.

    Args:
        x: float32 [H, >= D], normalised.
        position: last observed position [D], axis units.
        q01, q99: float64 [D], axis units.
        relative: bool [D], True where the action is relative to ``position``.

    Returns:
        float64 [H, D], axis units.

    Raises:
        ContractError: wrong type or shape.
    """
    axes = position.shape
    if x.dtype != np.float32 or x.ndim != 2 or len(axes) != 1 or x.shape[1] < axes[0]:
        raise ContractError(f"x is {x.dtype} {x.shape} for position {axes}", expected="float32 [H, >= D]")
    for name, vector, kind in (
        ("position", position, np.float64),
        ("q01", q01, np.float64),
        ("q99", q99, np.float64),
        ("relative", relative, np.bool_),
    ):
        if vector.dtype != kind or vector.shape != axes:
            raise ContractError(f"{name} is {vector.dtype} {vector.shape}", expected=f"{kind.__name__} {axes}")
    return _active.decode_chunk(
        np.ascontiguousarray(x),
        np.ascontiguousarray(position),
        np.ascontiguousarray(q01),
        np.ascontiguousarray(q99),
        np.ascontiguousarray(relative),
    )


def surprise(predicted: F32, observed: F32, scale: F32) -> float:
    """How far the imagined latents are from the observed ones: the root mean square of (predicted - observed) / scale.

    Args:
        predicted, observed: float32 [T, C], tokens by channels.
        scale: float32 [C], the spread of each channel in training.

    Returns:
        Dimensionless, >= 0; NaN where any input is NaN or a scale is zero over no difference.

    Raises:
        ContractError: wrong type or shape, or no elements.
    """
    if predicted.dtype != np.float32 or predicted.ndim != 2 or predicted.size == 0:
        raise ContractError(f"predicted is {predicted.dtype} {predicted.shape}", expected="non-empty float32 [T, C]")
    if observed.dtype != np.float32 or observed.shape != predicted.shape:
        raise ContractError(
            f"observed is {observed.dtype} {observed.shape}", expected=f"float32 {predicted.shape} like predicted"
        )
    if scale.dtype != np.float32 or scale.shape != predicted.shape[1:]:
        raise ContractError(f"scale is {scale.dtype} {scale.shape}", expected=f"float32 {predicted.shape[1:]}")
    return _active.surprise(
        np.ascontiguousarray(predicted), np.ascontiguousarray(observed), np.ascontiguousarray(scale)
    )
