"""A bundle on a websocket: what openpi and DreamZero clients send is answered, anything else is refused in words."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import serve as serve_plainly

from distill.teacher.remote import RemotePolicy
from edge_wam.app.serve import GRIPPER, JOINTS, PolicyServer, Session, greeting_of, image_keys
from edge_wam.bundle import Bundle
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ContractError, EdgeWamError, PolicyError
from edge_wam.policy import Policy
from edge_wam.policy_wire import pack, unpack


@pytest.fixture(scope="module")
def policy(bundle: Bundle) -> Policy:
    return Policy(bundle)


@pytest.fixture(scope="module")
def uri(policy: Policy) -> Iterator[str]:
    """A server in a thread of its own, on a free port."""
    loop, ready, address = asyncio.new_event_loop(), threading.Event(), []

    async def run() -> None:
        server = await PolicyServer(policy).start("127.0.0.1", 0)
        address.append(next(iter(server.sockets)).getsockname()[1])
        ready.set()
        await server.serve_forever()

    task = loop.create_task(run())
    thread = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([task])), daemon=True)
    thread.start()
    assert ready.wait(30)
    yield f"ws://127.0.0.1:{address[0]}"
    loop.call_soon_threadsafe(task.cancel)
    thread.join(30)
    loop.close()


def _request(robot: Embodiment, **changes: Any) -> dict[str, Any]:
    camera = robot.cameras[0]
    gripper = robot.axes[-1].unit == "1"
    message: dict[str, Any] = {
        key: np.full((camera.height, camera.width, 3), 90, np.uint8) for key in image_keys(robot).values()
    }
    message |= {JOINTS: robot.vector("rest")[: robot.dof - gripper].astype(np.float32), "prompt": "open the drawer"}
    message |= {GRIPPER: np.zeros(1, np.float32)} if gripper else {}
    return message | changes


# --- the bytes ---

ARRAYS = hnp.arrays(
    st.sampled_from([np.uint8, np.int64, np.float32, np.float64, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0),
)


@given(st.dictionaries(st.text(max_size=8), ARRAYS, max_size=4))
def test_arrays_cross_unchanged(message: dict[str, np.ndarray]) -> None:
    back = unpack(pack(message))
    assert back.keys() == message.keys()
    for key, value in message.items():
        assert back[key].dtype == value.dtype
        np.testing.assert_array_equal(back[key], value, strict=True)


def test_an_array_is_written_as_openpi_writes_it() -> None:
    packed = pack({"a": np.arange(3, dtype=np.float32), "n": np.float32(0.5)})
    assert msgpack.unpackb(packed) == {
        "a": {b"__ndarray__": True, b"data": b"\0\0\0\0\0\0\x80?\0\0\0@", b"dtype": "<f4", b"shape": [3]},
        "n": {b"__npgeneric__": True, b"data": 0.5, b"dtype": "<f4"},
    }


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with contextlib.suppress(ContractError):
        pack(unpack(data))  # whatever is understood is made of what can be said


@pytest.mark.parametrize(
    "array",
    [
        {b"__ndarray__": True, b"data": b"12345678", b"dtype": "|O8", b"shape": [1]},
        {b"__ndarray__": True, b"data": b"1234", b"dtype": "<f4", b"shape": [2]},
        {b"__ndarray__": True, b"data": b"", b"dtype": "<f4", b"shape": [-1]},
        {b"__ndarray__": True, b"data": b"", b"dtype": "<f4", b"shape": [1 << 62, 1 << 62]},
        {b"__ndarray__": True, b"data": b"12345678", b"dtype": "<c8", b"shape": [1]},
        {b"__ndarray__": True, b"dtype": "<f4", b"shape": [0]},
        {b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"},
    ],
)
def test_an_array_that_lies_about_itself_is_refused(array: dict[bytes, Any]) -> None:
    with pytest.raises(ContractError, match="not a message"):
        unpack(msgpack.packb({"a": array}))


def test_an_object_is_never_sent() -> None:
    for value in (np.array([object()]), object(), np.complex64(1)):
        with pytest.raises(ContractError, match="cannot be packed"):
            pack({"a": value})


# --- the server ---


def test_a_dreamzero_client_gets_knots_for_every_axis(policy: Policy, uri: str) -> None:
    robot, horizon = policy.bundle.embodiment, policy.bundle.manifest.model.knots
    with RemotePolicy(uri) as remote:
        assert remote.greeting["n_external_cameras"] == len(robot.cameras)
        assert remote.greeting["needs_session_id"] is True
        first = remote.infer(_request(robot, session_id="a"))
        again = remote.infer(_request(robot, session_id="b"))  # another session: nothing of the first is left
        remote.reset()
        reset = remote.infer(_request(robot, session_id="b"))
    assert first.shape == (horizon, robot.dof)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, reset)


def test_an_openpi_client_gets_actions_and_their_time(policy: Policy, uri: str) -> None:
    with connect(uri, compression=None) as socket:
        assert isinstance(unpack(_bytes(socket)), dict)
        socket.send(pack(_request(policy.bundle.embodiment)))
        answer = unpack(_bytes(socket))
    assert answer["actions"].shape == (policy.bundle.manifest.model.knots, policy.bundle.embodiment.dof)
    assert answer["server_timing"]["infer_ms"] > 0


def test_of_a_stack_of_images_the_newest_counts(policy: Policy, uri: str) -> None:
    robot = policy.bundle.embodiment
    camera, key = robot.cameras[0], image_keys(robot)[robot.cameras[0].name]
    newest = np.random.default_rng(0).integers(0, 255, (camera.height, camera.width, 3), np.uint8)
    stack = np.stack([np.zeros_like(newest)] * 3 + [newest])
    with RemotePolicy(uri) as remote:
        answers = [
            remote.infer(_request(robot, **{key: image}, session_id=n)) for n, image in enumerate((stack, newest))
        ]
        other = remote.infer(_request(robot, **{key: stack[0]}, session_id=9))
    np.testing.assert_array_equal(answers[0], answers[1])
    assert np.abs(answers[0] - other).max() > 0


def _bytes(socket: ClientConnection) -> bytes:
    data = socket.recv(timeout=30)
    assert isinstance(data, bytes)
    return data


def _bad(robot: Embodiment) -> dict[str, tuple[Any, str]]:
    camera, key = robot.cameras[0], image_keys(robot)[robot.cameras[0].name]
    joints = robot.vector("rest")[: robot.dof - (robot.axes[-1].unit == "1")]
    small = np.zeros((camera.height - 1, camera.width, 3), np.uint8)
    return {
        "text": ("hello", "text frame"),
        "no msgpack": (b"\xc1", "not a message"),
        "no map": (pack([1, 2]), "a request that is a list"),
        "endpoint": (pack(_request(robot, endpoint="move")), "endpoint 'move'"),
        "no prompt": (pack(_request(robot, prompt=None)), "prompt is None"),
        "too many words": (pack(_request(robot, prompt="open " * 400)), "instruction"),
        "small image": (pack(_request(robot, **{key: small})), key),
        "float image": (pack(_request(robot, **{key: small.astype(np.float32)})), key),
        "no image": (pack(_request(robot, **{key: None})), key),
        "long stack": (pack(_request(robot, **{key: np.zeros((5, camera.height, camera.width, 3), np.uint8)})), key),
        "joints": (pack(_request(robot, **{JOINTS: joints[:-1]})), JOINTS),
        "nan": (pack(_request(robot, **{JOINTS: joints * np.nan})), "nan"),
        "words for joints": (pack(_request(robot, **{JOINTS: np.array(["a"] * len(joints))})), JOINTS),
    }


CASES = ["text", "no msgpack", "no map", "endpoint", "no prompt", "too many words", "small image", "float image",
         "no image", "long stack", "joints", "nan", "words for joints"]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_understood_is_refused_in_words_and_the_next_client_is_served(
    case: str, policy: Policy, uri: str
) -> None:
    message, says = _bad(policy.bundle.embodiment)[case]
    with connect(uri, compression=None) as socket:
        _bytes(socket)
        socket.send(message)
        text = socket.recv(timeout=30)
        assert isinstance(text, str) and says in text and "Traceback" not in text
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=30)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
    with RemotePolicy(uri) as remote:
        assert np.isfinite(remote.infer(_request(policy.bundle.embodiment))).all()


def test_a_second_client_is_sent_away_and_the_first_goes_on(policy: Policy, uri: str) -> None:
    with RemotePolicy(uri) as first:
        with pytest.raises(PolicyError, match="another client"):
            RemotePolicy(uri)
        assert first.infer(_request(policy.bundle.embodiment)).ndim == 2


def test_a_request_larger_than_any_can_be_ends_the_connection(policy: Policy, uri: str) -> None:
    with connect(uri, compression=None) as socket:
        _bytes(socket)
        socket.send(b"\0" * 60_000_000)
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)


def test_an_address_in_use_is_refused(policy: Policy, uri: str) -> None:
    with pytest.raises(PolicyError, match="cannot be listened on"):
        asyncio.run(PolicyServer(policy).start("127.0.0.1", int(uri.rpartition(":")[2])))


def test_time_that_runs_backwards_is_refused(policy: Policy) -> None:
    times = iter([2_000_000_000, 1_000_000_000])
    session = Session(policy, clock=lambda: next(times))
    session.reset()
    session.answer(_request(policy.bundle.embodiment))
    with pytest.raises(EdgeWamError, match="time"):
        session.answer(_request(policy.bundle.embodiment))


def test_the_greeting_has_exactly_the_fields_that_clients_build_their_configuration_from(policy: Policy) -> None:
    fields = {"image_resolution", "needs_wrist_camera", "n_external_cameras", "needs_stereo_camera", "needs_session_id",
              "action_space"}  # fmt: skip
    assert unpack(greeting_of(policy.bundle.embodiment).pack()).keys() == fields


# --- the client ---


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (["Traceback: it broke"], "says: Traceback: it broke"),
        ([pack(np.full((2, 3), np.nan, np.float32))], "a number that is none"),
        ([pack(np.zeros(3, np.float32))], "something else"),
        ([pack("no")], "something else"),
        ([b"\xc1"], "not a message"),
        ([], "is gone"),
    ],
)
def test_a_server_that_answers_badly_is_not_believed(answers: list[str | bytes], says: str) -> None:
    def answer(socket: Any) -> None:
        socket.send(pack({}))
        socket.recv()
        for one in answers:
            socket.send(one)

    with serve_plainly(answer, "127.0.0.1", 0, compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with (
            RemotePolicy(f"ws://127.0.0.1:{server.socket.getsockname()[1]}") as remote,
            pytest.raises(EdgeWamError, match=says),
        ):
            remote.infer({})
        server.shutdown()


def test_an_answer_that_is_late_is_never_taken_for_the_next() -> None:
    def answer(socket: Any) -> None:
        socket.send(pack({}))
        socket.recv()
        done.wait(30)

    done = threading.Event()
    with serve_plainly(answer, "127.0.0.1", 0, compression=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        remote = RemotePolicy(f"ws://127.0.0.1:{server.socket.getsockname()[1]}", answer_s=0.05)
        with pytest.raises(PolicyError, match="no answer within"):
            remote.infer({})
        done.set()
        with pytest.raises(PolicyError, match="gone"):
            remote.infer({})
        server.shutdown()


def test_nobody_there_is_said() -> None:
    with pytest.raises(PolicyError, match="no policy server"):
        RemotePolicy("ws://127.0.0.1:9")
