"""An engine reads and writes exactly the buffers it was promised, and says what it cannot do."""

from __future__ import annotations

import numpy as np
import pytest

from edge_wam.engines import Engine, open_engine
from edge_wam.errors import EngineError
from tests.support.tiny_bundle import MODEL, tiny_parts


@pytest.fixture(scope="module")
def encode() -> Engine:
    return open_engine("encode", tiny_parts().graphs["encode"])


def _buffers(engine: Engine) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    inputs = {name: spec.empty() for name, spec in engine.inputs.items()}
    return inputs, {name: spec.empty() for name, spec in engine.outputs.items()}


def test_it_writes_into_the_given_buffer(encode: Engine) -> None:
    inputs, outputs = _buffers(encode)
    inputs["canvas"][...] = np.random.default_rng(0).normal(size=inputs["canvas"].shape)
    target = outputs["latent"]
    encode.run(inputs, outputs)
    assert outputs["latent"] is target and target.any()
    first = target.copy()
    inputs["canvas"][...] = 0
    encode.run(inputs, outputs)
    assert not target.any() and first.any()  # no bias: zeros give zeros, in the same memory


def test_two_calls_with_different_memory_do_not_mix(encode: Engine) -> None:
    a, b = _buffers(encode), _buffers(encode)
    a[0]["canvas"][...] = 1.0
    encode.run(*a)
    kept = a[1]["latent"].copy()
    encode.run(*b)
    np.testing.assert_array_equal(a[1]["latent"], kept)
    assert not b[1]["latent"].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, o: i.pop("canvas"), "missing or unknown"),
        (lambda i, o: i.update(extra=np.zeros(1)), "missing or unknown"),
        (lambda i, o: o.pop("latent"), "missing or unknown"),
        (lambda i, o: i.update(canvas=i["canvas"].astype(np.float64)), "is float64"),
        (lambda i, o: i.update(canvas=i["canvas"][..., :-1]), "expected: float32"),
        (lambda i, o: i.update(canvas=i["canvas"].transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)), "plain memory"),
        (lambda i, o: o["latent"].setflags(write=False), "plain memory"),
        (lambda i, o: o.update(latent=o["latent"][0]), "expected: float32"),
    ],
)
def test_a_wrong_buffer_never_reaches_native_code(encode: Engine, change: object, message: str) -> None:
    inputs, outputs = _buffers(encode)
    change(inputs, outputs)  # type: ignore[operator]
    with pytest.raises(EngineError, match=message):
        encode.run(inputs, outputs)


def test_a_failing_graph_is_an_error_of_ours() -> None:
    engine = open_engine("text", tiny_parts().graphs["text"])
    inputs, outputs = _buffers(engine)
    inputs["tokens"][...] = 10**6  # a row that the table does not have
    with pytest.raises(EngineError, match="engine 'text' failed"):
        engine.run(inputs, outputs)


@pytest.mark.parametrize("backend", ["tensorrt", "onnx-gpu", ""])
def test_a_backend_that_is_not_here_is_refused_with_what_is(backend: str) -> None:
    with pytest.raises(EngineError, match="onnx-cpu"):
        open_engine("step", b"", backend=backend)


def test_zero_threads_are_refused() -> None:
    with pytest.raises(EngineError, match="0 threads"):
        open_engine("step", tiny_parts().graphs["step"], threads=0)


def test_the_number_of_threads_does_not_change_the_numbers() -> None:
    results = []
    for threads in (1, 2):
        engine = open_engine("step", tiny_parts().graphs["step"], threads=threads)
        inputs, outputs = _buffers(engine)
        for index, array in enumerate(inputs.values()):
            array[...] = np.random.default_rng(index).normal(size=array.shape)
        engine.run(inputs, outputs)
        results.append(outputs)
    for name in results[0]:
        np.testing.assert_array_equal(results[0][name], results[1][name])
    assert results[0]["action"].shape == (1, MODEL.knots, 32)
