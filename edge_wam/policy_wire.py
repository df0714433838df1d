"""Messages of the openpi and DreamZero policy protocols: msgpack with NumPy arrays in it, over a websocket.

An array is the map {b"__ndarray__": True, b"data", b"dtype", b"shape"}, a NumPy scalar {b"__npgeneric__": True, ...}
(openpi-client, ``msgpack_numpy``). The server speaks first and says what it wants to be sent (:class:`Greeting`). Then
each binary frame of the client is a request, and a binary frame the answer; **a text frame is an error**, in words.

=========  ============================  =====================================
dialect    request                       answer
=========  ============================  =====================================
DreamZero  has ``endpoint``: infer       an array [knots, axes]
DreamZero  has ``endpoint``: reset       the text ``reset successful``
openpi     has no ``endpoint``           {"actions": array, "server_timing"}
=========  ============================  =====================================
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import msgpack
import numpy as np

from edge_wam.errors import ContractError

RESET_DONE = "reset successful"
_KINDS = "biufSU"
"""Numbers and texts. Objects, records and complex numbers do not cross."""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the server asks for; the fields of DreamZero's PolicyServerConfig, which clients build from it by name."""

    image_resolution: tuple[int, int] | None
    needs_wrist_camera: bool
    n_external_cameras: int
    needs_stereo_camera: bool = False
    needs_session_id: bool = True
    action_space: str = "joint_position"

    def pack(self) -> bytes:
        return pack(asdict(self))


def pack(message: Any) -> bytes:
    """A message of maps, lists, texts, numbers and arrays as bytes.

    Raises:
        ContractError: something else is in it.
    """
    try:
        packed: bytes = msgpack.packb(message, default=_pack_array)
    except (TypeError, ValueError, OverflowError) as error:
        raise ContractError(
            f"a message cannot be packed: {error}", expected="maps, lists, texts and numbers"
        ) from error
    return packed


def unpack(data: bytes) -> Any:
    """The message in ``data``; arrays are read-only views of it. Nothing in it is ever run.

    Raises:
        ContractError: not msgpack, bytes too many or too few, or an array of another kind or size than it says.
    """
    try:
        return msgpack.unpackb(data, object_hook=_unpack_array, strict_map_key=False)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise ContractError(f"not a message: {error}", expected="msgpack with NumPy arrays") from error


def _pack_array(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in _KINDS:
        raise TypeError(f"an array of {value.dtype}")
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a {type(value).__name__}")


def _unpack_array(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        dtype, shape, data = _dtype(value), tuple(value[b"shape"]), value[b"data"]
        if not all(isinstance(n, int) and n >= 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(data):
            raise ValueError(f"{len(data)} bytes for an array {shape} of {dtype}")
        return np.frombuffer(data, dtype).reshape(shape)
    if b"__npgeneric__" in value:
        return _dtype(value).type(value[b"data"])
    return value


def _dtype(value: dict[Any, Any]) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.dtype(value[b"dtype"])
    if dtype.kind not in _KINDS or dtype.itemsize == 0:
        raise ValueError(f"an array of {dtype}")
    return dtype
