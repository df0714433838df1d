"""A policy that runs elsewhere, by the openpi or DreamZero protocol: a teacher on a server, or ``edge-wam serve``.

It lives in the datacentre's part on purpose: a robot that waits for a network is a robot that stands still for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import InvalidHandshake, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from edge_wam.errors import EdgeWamError, PolicyError
from edge_wam.policy_wire import RESET_DONE, pack, unpack

OPEN_TIMEOUT_S = 10.0


class RemotePolicy:
    """A connection to a policy server.

    Args:
        uri: ``ws://host:port``.
        answer_s: how long one answer may take (a 14B teacher takes seconds).

    Raises:
        PolicyError: nobody answers there, or what answers is no policy server.
    """

    def __init__(self, uri: str, answer_s: float = 60.0) -> None:
        self._answer_s = answer_s
        self._open = ExitStack()
        try:
            # A server that is busy with an answer sends no pong: the time of an answer is the only deadline.
            self._socket: ClientConnection = self._open.enter_context(
                connect(uri, compression=None, max_size=None, open_timeout=OPEN_TIMEOUT_S, ping_interval=None)
            )
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as error:
            raise PolicyError(f"no policy server at {uri}: {error}", remedy="start it, or give its address") from error
        try:
            greeting = self._receive()
            if not isinstance(greeting, dict):
                raise PolicyError(f"{uri} did not say what it wants to be sent", expected="a map, as openpi servers do")
        except EdgeWamError:
            self.close()
            raise
        self.greeting: dict[str, Any] = greeting

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._open.close()

    def reset(self) -> None:
        """Forget the past (DreamZero's dialect).

        Raises:
            PolicyError: the server reports an error, or is gone.
        """
        self._send({"endpoint": "reset"})
        answer = self._receive(text_is_error=False)
        if answer != RESET_DONE:
            raise PolicyError(f"the policy server did not reset: {answer}")

    def infer(self, observation: Mapping[str, Any]) -> NDArray[np.float32]:
        """Actions [knots, axes] for an observation (DreamZero's dialect).

        Raises:
            PolicyError: the server reports an error (its text frame), is gone or too late, or answered with something
                that is no matrix of finite numbers.
        """
        self._send({**observation, "endpoint": "infer"})
        answer = self._receive()
        if isinstance(answer, dict):  # some servers of this dialect wrap it as openpi does
            answer = answer.get("actions")
        if not isinstance(answer, np.ndarray) or answer.ndim != 2 or answer.dtype.kind != "f":
            raise PolicyError("the policy server answered with something else", expected="actions [knots, axes]")
        if not np.isfinite(answer).all():
            raise PolicyError("the policy server answered with a number that is none", remedy="do not use its actions")
        return answer.astype(np.float32)

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._socket.send(pack(message))
        except WebSocketException as error:
            raise PolicyError(f"the policy server is gone: {error}", remedy="connect again") from error

    def _receive(self, *, text_is_error: bool = True) -> Any:
        try:
            data = self._socket.recv(timeout=self._answer_s)
        except TimeoutError as error:
            self.close()  # a late answer must never be taken for the next one's
            raise PolicyError(f"no answer within {self._answer_s:g} s", remedy="connect again") from error
        except WebSocketException as error:
            raise PolicyError(f"the policy server is gone: {error}", remedy="connect again") from error
        if isinstance(data, str):
            if text_is_error:
                raise PolicyError(f"the policy server says: {data.strip()}")
            return data
        return unpack(data)
