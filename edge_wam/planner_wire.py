"""What control and inference say to each other through two mailboxes: fixed headers and raw arrays, nothing pickled.

A request names everything that the answer depends on: exact frames by index, the state at that time, the committed
knots, the sequence number. So a recording of requests and frames replays to the same answers.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_wam.contracts import F32, F64, ActionChunk, Imagination
from edge_wam.errors import ContractError

REQUEST_BYTES = 16_384
ANSWER_BYTES = 4 << 20
# sequence, generation, reset, cameras, dof, state_at_ns, prefix knots, text bytes
_REQUEST = struct.Struct("<QIBBHqHH")
_KIND = struct.Struct("<BIQ")  # kind, generation, sequence
_READY = struct.Struct("<32sIqqB")  # model hash, channels, warm step ns, load ns, golden exact
_ANSWER = struct.Struct("<qqqHHH32s")  # t0, dt, observed_at, H, D, prefix, model hash
_DREAM = struct.Struct("<qHIIqqq")  # captured_at, F, tokens, channels, encode ns, step ns, total ns
_I64 = struct.Struct("<q")


class AnswerKind(IntEnum):
    """What the inference process has to say."""

    READY = 1
    CHUNK = 2
    ERROR = 3
    """The policy refused or failed; text."""
    STARTUP_FAILED = 4
    """The bundle cannot be used; text."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """One question.

    Attributes:
        sequence: strictly increasing over the whole session.
        generation: of the inference process; an answer of an older one is not used.
        reset: forget the past first (a new episode).
        frames: index of the frame to use, by camera name, in the embodiment's order.
        state_at_ns: time of the two vectors.
        position, setpoint: [D], axis units.
        prefix: committed knots [d, D].
    """

    sequence: int
    generation: int
    reset: bool
    instruction: str
    frames: Mapping[str, int]
    state_at_ns: int
    position: F64
    setpoint: F64
    prefix: F64

    def pack(self) -> bytes:
        text = self.instruction.encode()
        head = _REQUEST.pack(
            self.sequence, self.generation, self.reset, len(self.frames), len(self.position), self.state_at_ns,
            len(self.prefix), len(text),
        )
        indices = b"".join(_I64.pack(index) for index in self.frames.values())
        return b"".join(
            (head, indices, self.position.tobytes(), self.setpoint.tobytes(), self.prefix.tobytes(), text)
        )

    @classmethod
    def unpack(cls, data: bytes, cameras: tuple[str, ...]) -> PlanRequest:
        """``cameras``: names in the embodiment's order."""
        sequence, generation, reset, count, dof, state_at_ns, knots, text_bytes = _REQUEST.unpack_from(data)
        if count != len(cameras):
            raise ContractError(f"request for {count} cameras", expected=f"{len(cameras)}")
        reader = _Reader(data, _REQUEST.size)
        indices = reader.array(np.int64, (count,))
        position, setpoint = reader.array(np.float64, (dof,)), reader.array(np.float64, (dof,))
        prefix = reader.array(np.float64, (knots, dof))
        text = data[reader.at : reader.at + text_bytes].decode()
        frames = dict(zip(cameras, (int(i) for i in indices), strict=True))
        return cls(sequence, generation, bool(reset), text, frames, state_at_ns, position, setpoint, prefix)


@dataclass(frozen=True, slots=True)
class Ready:
    """The bundle is loaded, warm, and has reproduced its golden run."""

    model_hash: str
    latent_scale: F32
    warm_step_ns: int
    load_ns: int
    golden_exact: bool


@dataclass(frozen=True, slots=True)
class PlanAnswer:
    """One answer: the chunk, what the model expects to see, and what it saw (latents [tokens, channels])."""

    chunk: ActionChunk
    imagination: Imagination
    latents: F32
    captured_at_ns: int
    encode_ns: int
    step_ns: int
    total_ns: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """ERROR or STARTUP_FAILED, in words. ``not_finite``: the answer held a number that is none."""

    kind: AnswerKind
    text: str
    not_finite: bool = False


Number = TypeVar("Number", bound=np.generic)


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def array(self, dtype: type[Number], shape: tuple[int, ...]) -> NDArray[Number]:
        out = np.frombuffer(self._data, dtype, int(np.prod(shape)), self.at).reshape(shape)
        self.at += out.nbytes
        return out


def pack_ready(generation: int, ready: Ready) -> bytes:
    """READY of one inference process."""
    return (
        _KIND.pack(AnswerKind.READY, generation, 0)
        + _READY.pack(
            bytes.fromhex(ready.model_hash), len(ready.latent_scale), ready.warm_step_ns, ready.load_ns,
            ready.golden_exact,
        )
        + ready.latent_scale.astype(np.float32).tobytes()
    )


def pack_trouble(kind: AnswerKind, generation: int, sequence: int, text: str) -> bytes:
    """ERROR or STARTUP_FAILED; the text is cut at 2000 bytes."""
    return _KIND.pack(kind, generation, sequence) + text.encode()[:2000]


def pack_answer(generation: int, answer: PlanAnswer) -> bytes:
    """CHUNK."""
    chunk, dream = answer.chunk, answer.imagination
    frames, tokens, channels = dream.latents.shape
    return b"".join(
        (
            _KIND.pack(AnswerKind.CHUNK, generation, chunk.sequence),
            _ANSWER.pack(
                chunk.t0_ns, chunk.dt_ns, chunk.observed_at_ns, *chunk.q.shape, chunk.prefix,
                bytes.fromhex(chunk.model_hash),
            ),
            _DREAM.pack(
                answer.captured_at_ns, frames, tokens, channels, answer.encode_ns, answer.step_ns, answer.total_ns
            ),
            chunk.q.tobytes(),
            b"".join(_I64.pack(t) for t in dream.for_ns),
            np.ascontiguousarray(dream.latents, np.float32).tobytes(),
            np.ascontiguousarray(answer.latents, np.float32).tobytes(),
        )
    )


def unpack_answer(data: bytes) -> tuple[int, int, Ready | PlanAnswer | Trouble]:
    """(generation, sequence, what). A chunk with a number that is none comes out as Trouble, never as a chunk."""
    kind, generation, sequence = _KIND.unpack_from(data)
    at = _KIND.size
    if kind in (AnswerKind.ERROR, AnswerKind.STARTUP_FAILED):
        return generation, sequence, Trouble(AnswerKind(kind), data[at:].decode(errors="replace"))
    if kind == AnswerKind.READY:
        model_hash, channels, warm_ns, load_ns, exact = _READY.unpack_from(data, at)
        scale = _Reader(data, at + _READY.size).array(np.float32, (channels,)).astype(np.float32)
        return generation, sequence, Ready(model_hash.hex(), scale, warm_ns, load_ns, bool(exact))
    t0, dt, observed, knots, dof, prefix, model_hash = _ANSWER.unpack_from(data, at)
    captured, frames, tokens, channels, encode_ns, step_ns, total_ns = _DREAM.unpack_from(data, at + _ANSWER.size)
    reader = _Reader(data, at + _ANSWER.size + _DREAM.size)
    q = reader.array(np.float64, (knots, dof)).astype(np.float64)
    for_ns = tuple(int(t) for t in reader.array(np.int64, (frames,)))
    dream = reader.array(np.float32, (frames, tokens, channels)).astype(np.float32)
    latents = reader.array(np.float32, (tokens, channels)).astype(np.float32)
    if not (np.isfinite(q).all() and np.isfinite(dream).all() and np.isfinite(latents).all()):
        return generation, sequence, Trouble(AnswerKind.ERROR, "the answer holds a number that is none", True)
    try:
        chunk = ActionChunk(t0, dt, q, observed, sequence, model_hash.hex(), prefix)
        imagination = Imagination(dream, for_ns, observed, sequence)
    except ContractError as error:
        return generation, sequence, Trouble(AnswerKind.ERROR, str(error))
    return generation, sequence, PlanAnswer(chunk, imagination, latents, captured, encode_ns, step_ns, total_ns)
