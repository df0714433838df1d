"""The policy answers the same question the same way, carries what is committed, and never answers with a guess."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_wam.bundle import Bundle
from edge_wam.contracts import ActionChunk, Frame, Observation
from edge_wam.errors import BundleError, ContractError, EdgeWamError, PolicyError
from edge_wam.policy import Policy
from tests.support.resign import resign
from tests.support.tiny_bundle import (
    MODEL,
    make_tiny_bundle,
    observation,
    open_tiny_bundle,
    tiny_parts,
    tiny_robot,
)

ROBOT = tiny_robot()
DT = 50_000_000
START = 10**12
NO_PREFIX = np.zeros((0, 4))


@pytest.fixture
def policy(bundle: Bundle) -> Policy:
    return Policy(bundle)


def run(policy: Policy, count: int, *, stride_ns: int = 4 * DT, seed: int = 0) -> list[ActionChunk]:
    policy.reset()
    return [policy.infer(observation(ROBOT, START + k * stride_ns, seed=seed), NO_PREFIX, k)[0] for k in range(count)]


def test_the_same_observations_give_the_same_bits(bundle: Bundle) -> None:
    first, second = run(Policy(bundle), 6), run(Policy(bundle, threads=2), 6)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.q, b.q)


def test_after_a_reset_nothing_of_the_last_episode_remains(policy: Policy) -> None:
    first = run(policy, 5)
    run(policy, 5, seed=3)
    for a, b in zip(first, run(policy, 5), strict=True):
        np.testing.assert_array_equal(a.q, b.q)


def test_noise_depends_on_the_sequence_number_alone(policy: Policy) -> None:
    chunks = {}
    for sequence in (5, 9, 5):
        policy.reset()
        chunk = policy.infer(observation(ROBOT, START), NO_PREFIX, sequence)[0]
        if sequence in chunks:
            np.testing.assert_array_equal(chunks[sequence].q, chunk.q)
        chunks[sequence] = chunk
    assert (chunks[5].q != chunks[9].q).all()


def test_memory_and_instruction_matter(policy: Policy) -> None:
    with_memory = run(policy, 4)[-1]
    policy.reset()
    without = policy.infer(observation(ROBOT, START + 12 * DT), NO_PREFIX, 3)[0]
    assert (with_memory.q != without.q).any()
    policy.reset()
    other = policy.infer(observation(ROBOT, START + 12 * DT, instruction="close the door"), NO_PREFIX, 3)[0]
    assert (other.q != without.q).any()


def test_times_and_origin_of_an_answer(policy: Policy, bundle: Bundle) -> None:
    seen = observation(ROBOT, START)
    late = Observation(
        {name: Frame(f.image, START - 30_000_000 * (name == "topview"), 1) for name, f in seen.frames.items()},
        seen.joint_position,
        seen.joint_setpoint,
        START,
        seen.instruction,
    )
    chunk, imagination, latents = policy.infer(late, NO_PREFIX, 7)
    assert chunk.t0_ns == START + DT and chunk.dt_ns == DT and chunk.q.shape == (MODEL.knots, 4)
    assert chunk.observed_at_ns == imagination.observed_at_ns == latents.captured_at_ns == START - 30_000_000
    assert imagination.for_ns == tuple(START - 30_000_000 + k * DT for k in MODEL.future_knots)
    assert chunk.sequence == imagination.sequence == 7
    assert chunk.model_hash == bundle.model_hash
    assert latents.values.shape == (MODEL.tokens_per_frame, MODEL.channels)
    assert imagination.latents.shape == (2, MODEL.tokens_per_frame, MODEL.channels)
    assert policy.last_timing is not None and policy.last_timing.total_ns >= policy.last_timing.step_ns > 0


@given(d=st.integers(0, MODEL.knots - 1), data=st.data())
@settings(max_examples=40, deadline=None)
def test_committed_knots_come_back_unchanged(bundle: Bundle, d: int, data: st.DataObject) -> None:
    policy = _shared(bundle)
    low, high = ROBOT.vector("position_min"), ROBOT.vector("position_max")
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    prefix = random.uniform(low, high, (d, 4))
    chunk, _, _ = policy.infer(observation(ROBOT, START), prefix, 0)
    np.testing.assert_array_equal(chunk.q[:d], prefix)
    assert chunk.prefix == d


_policies: dict[str, Policy] = {}


def _shared(bundle: Bundle) -> Policy:
    policy = _policies.setdefault(bundle.model_hash, Policy(bundle))
    policy.reset()
    return policy


def test_what_a_caller_keeps_does_not_change_with_the_next_call(policy: Policy) -> None:
    kept = policy.infer(observation(ROBOT, START), NO_PREFIX, 0)
    copies = kept[0].q.copy(), kept[1].latents.copy(), kept[2].values.copy()
    policy.infer(observation(ROBOT, START + DT, seed=5), NO_PREFIX, 1)
    for now, before in zip((kept[0].q, kept[1].latents, kept[2].values), copies, strict=True):
        np.testing.assert_array_equal(now, before)
        assert not now.flags.writeable


def _frames(seen: Observation, **changes: Frame | None) -> Observation:
    frames = {name: changes.get(name, frame) for name, frame in seen.frames.items()}
    kept = {name: frame for name, frame in frames.items() if frame is not None}
    return Observation(kept, seen.joint_position, seen.joint_setpoint, seen.state_at_ns, seen.instruction)


SEEN = observation(ROBOT, START)
BAD = {
    "camera gone": (_frames(SEEN, corner2=None), NO_PREFIX, 1, "camera 'corner2' has no frame"),
    "camera of another size": (
        _frames(SEEN, corner2=Frame(np.zeros((48, 64, 3), np.uint8), START, 1)),
        NO_PREFIX,
        1,
        "camera 'corner2' sends",
    ),
    "frame from before": (
        _frames(SEEN, corner2=Frame(SEEN.frames["corner2"].image, START - 20 * DT, 1)),
        NO_PREFIX,
        1,
        "time runs forwards",
    ),
    "sequence repeated": (SEEN, NO_PREFIX, 0, "sequence 0 after 0"),
    "prefix with NaN": (SEEN, np.full((2, 4), np.nan), 1, "prefix holds a number that is none"),
    "prefix with infinity": (SEEN, np.full((2, 4), np.inf), 1, "prefix holds a number that is none"),
    "prefix too long": (SEEN, np.zeros((MODEL.knots, 4)), 1, "prefix is"),
    "prefix of other axes": (SEEN, np.zeros((2, 3)), 1, "prefix is"),
    "prefix in single precision": (SEEN, np.zeros((2, 4), np.float32), 1, "prefix is"),
    "fewer axes": (Observation(SEEN.frames, np.zeros(3), np.zeros(3), START, "go"), NO_PREFIX, 1, "3 axes"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_refused_and_leaves_no_trace(policy: Policy, case: str) -> None:
    bad, prefix, sequence, message = BAD[case]
    wanted = [*run(policy, 1), policy.infer(observation(ROBOT, START + 2 * DT), NO_PREFIX, 1)[0]]
    run(policy, 1)
    with pytest.raises(PolicyError, match=message):
        policy.infer(bad, prefix, sequence)
    again = policy.infer(observation(ROBOT, START + 2 * DT), NO_PREFIX, 1)[0]
    np.testing.assert_array_equal(again.q, wanted[1].q)


@pytest.mark.parametrize("words", ["", "  ", "one two three four five six seven eight nine"])
def test_an_instruction_without_meaning_is_refused(policy: Policy, words: str) -> None:
    with pytest.raises(ContractError, match="instruction"):
        policy.infer(observation(ROBOT, START, instruction=words), NO_PREFIX, 0)


def test_a_changed_instruction_forgets_frames_seen_under_the_old_one(policy: Policy) -> None:
    run(policy, 3)
    policy.set_instruction("close the door")
    fresh = policy.infer(observation(ROBOT, START + 12 * DT, instruction="close the door"), NO_PREFIX, 3)[0]
    policy.reset()
    alone = policy.infer(observation(ROBOT, START + 12 * DT, instruction="close the door"), NO_PREFIX, 3)[0]
    np.testing.assert_array_equal(fresh.q, alone.q)


def test_a_model_that_says_nan_gives_no_chunk(tmp_path: Path) -> None:
    policy = Policy(open_tiny_bundle(make_tiny_bundle(tmp_path, fault="nan")))
    with pytest.raises(PolicyError, match="output 'action' holds a number that is none"):
        policy.infer(observation(ROBOT, START), NO_PREFIX, 0)
    assert policy.last_timing is None


def test_what_the_model_wants_outside_the_limits_is_not_hidden(tmp_path: Path) -> None:
    """The policy does not clip: the guard must see what the model wanted, and refuse it."""
    policy = Policy(open_tiny_bundle(make_tiny_bundle(tmp_path, fault="far")))
    chunk = policy.infer(observation(ROBOT, START), NO_PREFIX, 0)[0]
    assert (chunk.q[:, 0] > ROBOT.axes[0].position_max).all()


def test_the_golden_run_is_exact_where_it_was_recorded(policy: Policy) -> None:
    run(policy, 3)
    result = policy.verify_golden()
    assert result.exact and result.worst == 0.0 and result.steps == 3
    assert policy.instruction is None
    policy.infer(observation(ROBOT, START), NO_PREFIX, 0)  # and the policy is as new


@pytest.mark.parametrize("fault", ["nan", "far"])
def test_a_machine_that_computes_something_else_may_not_arm(tmp_path: Path, fault: str) -> None:
    policy = Policy(open_tiny_bundle(make_tiny_bundle(tmp_path, fault=fault)))  # type: ignore[arg-type]
    with pytest.raises(PolicyError):
        policy.verify_golden()


@pytest.mark.parametrize(("name", "change"), [("q", 0.02), ("latent", 0.1), ("video", 0.1), ("q", np.nan)])
def test_a_golden_run_off_by_more_than_allowed_is_refused(tmp_path: Path, name: str, change: float) -> None:
    directory = make_tiny_bundle(tmp_path)
    arrays = open_tiny_bundle(directory).golden()
    arrays[name] = arrays[name] + change * np.ones((), arrays[name].dtype)
    np.savez(directory / "golden.npz", allow_pickle=False, **arrays)
    resign(directory)
    with pytest.raises(PolicyError, match="do not arm"):
        Policy(open_tiny_bundle(directory)).verify_golden()


@pytest.mark.parametrize("name", ["q", "frame.corner2", "instruction", "position", "captured_at_ns.topview"])
def test_an_incomplete_golden_run_is_refused(tmp_path: Path, name: str) -> None:
    directory = make_tiny_bundle(tmp_path)
    arrays = open_tiny_bundle(directory).golden()
    del arrays[name]
    np.savez(directory / "golden.npz", allow_pickle=False, **arrays)
    resign(directory)
    with pytest.raises(EdgeWamError):
        Policy(open_tiny_bundle(directory)).verify_golden()


def test_a_graph_that_is_not_what_the_manifest_says_is_not_run(bundle: Bundle) -> None:
    swapped = {**bundle.files, "graphs/encode.onnx": bundle.graph("decode")}
    with pytest.raises(EdgeWamError, match="graph 'encode' has another interface"):
        Policy(dataclasses.replace(bundle, files=swapped))


def test_a_graph_of_another_precision_than_stated_is_not_run(bundle: Bundle) -> None:
    floating = {**bundle.files, "graphs/step.onnx": tiny_parts(int8=False).graphs["step"]}
    with pytest.raises(BundleError, match="graph 'step' is not int8"):
        Policy(dataclasses.replace(bundle, files=floating))


def test_latents_can_be_looked_at(policy: Policy) -> None:
    _, imagination, latents = policy.infer(observation(ROBOT, START), NO_PREFIX, 0)
    picture = policy.decode_latents(latents.values)
    assert picture.shape == (64, 128, 3) and picture.dtype == np.uint8
    assert (policy.decode_latents(imagination.latents[0]) != picture).any()
    with pytest.raises(PolicyError, match="latents are"):
        policy.decode_latents(latents.values[1:])
    with pytest.raises(PolicyError, match="number that is none"):
        policy.decode_latents(np.full((MODEL.tokens_per_frame, MODEL.channels), np.nan, np.float32))
