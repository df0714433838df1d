"""How a bundle makes a chunk: in one pass, in two, and without imagining anything. Counted where graphs are run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edge_wam.app.opening import open_configured_bundle
from edge_wam.bundle import Bundle, BundleParts, demo_private_key
from edge_wam.bundle.writer import write_bundle
from edge_wam.config import MonitorConfig, RunConfig
from edge_wam.errors import BundleError, ConfigError, PolicyError
from edge_wam.planner_wire import PlanAnswer, pack_answer, unpack_answer
from edge_wam.policy import Policy
from tests.support.tiny_bundle import (
    MODEL,
    ROBOT_FILE,
    make_tiny_bundle,
    observation,
    open_tiny_bundle,
    tiny_parts,
    tiny_robot,
)

ROBOT = tiny_robot()
AT_NS = 10**9


@pytest.fixture(scope="module", params=[(1, True), (2, True), (1, False), (2, False)], ids=str)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, bool, Bundle]:
    """Passes, whether frames are imagined, and such a bundle."""
    passes, imagines = request.param
    folder = tmp_path_factory.mktemp("way")
    return passes, imagines, open_tiny_bundle(make_tiny_bundle(folder, passes=passes, imagines=imagines))


def test_every_chunk_takes_the_passes_that_the_bundle_states(way: tuple[int, bool, Bundle]) -> None:
    passes, imagines, bundle = way
    policy = Policy(bundle)
    policy.warm_up()
    assert policy.graph_runs == {}, "warming up makes no chunk"
    for k in range(5):
        chunk, imagined, _ = policy.infer(observation(ROBOT, AT_NS + k * 10**8), np.zeros((0, 4)), k)
        assert np.isfinite(chunk.q).all()
        assert len(imagined.latents) == len(imagined.for_ns) == (len(MODEL.future_knots) if imagines else 0)
    wanted = {"text": 1, "encode": 5, "step": 5} | ({"refine": 5} if passes == 2 else {})
    assert policy.graph_runs == wanted


def test_every_way_has_a_golden_run_that_holds(way: tuple[int, bool, Bundle]) -> None:
    assert Policy(way[2]).verify_golden().exact


def test_committed_knots_survive_every_pass(way: tuple[int, bool, Bundle]) -> None:
    seen = observation(ROBOT, AT_NS)
    prefix = np.tile(seen.joint_position + 0.001, (3, 1))
    chunk, _, _ = Policy(way[2]).infer(seen, prefix, 1)
    np.testing.assert_array_equal(chunk.q[:3], prefix)


def test_every_way_crosses_to_the_control_process(way: tuple[int, bool, Bundle]) -> None:
    chunk, imagined, latents = Policy(way[2]).infer(observation(ROBOT, AT_NS), np.zeros((0, 4)), 1)
    answer = PlanAnswer(chunk, imagined, latents.values, latents.captured_at_ns, 1, 2, 3)
    _, _, back = unpack_answer(pack_answer(7, answer))
    assert isinstance(back, PlanAnswer)
    assert back.imagination.for_ns == imagined.for_ns
    np.testing.assert_array_equal(back.imagination.latents, imagined.latents)
    np.testing.assert_array_equal(back.chunk.q, chunk.q)


def test_the_second_pass_is_what_moves_the_arm(tmp_path: Path) -> None:
    answers = []
    for passes in (1, 2):
        bundle = open_tiny_bundle(make_tiny_bundle(tmp_path / str(passes), passes=passes))
        chunk, imagined, _ = Policy(bundle).infer(observation(ROBOT, AT_NS), np.zeros((0, 4)), 1)
        answers.append((chunk.q, imagined.latents))
    assert not np.array_equal(answers[0][0], answers[1][0])
    np.testing.assert_allclose(answers[1][1], 0.5 * answers[0][1], rtol=1e-6, err_msg="of the first pass' video")


def test_a_second_pass_that_is_no_number_gives_no_chunk_and_no_memory(tmp_path: Path) -> None:
    policy = Policy(open_tiny_bundle(make_tiny_bundle(tmp_path, passes=2)))
    policy.infer(observation(ROBOT, AT_NS), np.zeros((0, 4)), 1)
    before = len(policy._history)

    class Broken:
        def run(self, inputs: object, outputs: dict[str, np.ndarray]) -> None:
            outputs["action"][...] = np.nan

    policy._engines["refine"] = Broken()  # type: ignore[assignment]
    with pytest.raises(PolicyError, match="'refine'"):
        policy.infer(observation(ROBOT, AT_NS + 10**8), np.zeros((0, 4)), 2)
    assert len(policy._history) == before


def _written(folder: Path, parts: BundleParts) -> None:
    write_bundle(folder / "x.wam", parts, golden=lambda _: {}, key=demo_private_key())


def test_graphs_that_do_not_fit_the_passes_are_refused(tmp_path: Path) -> None:
    two = tiny_parts(passes=2)
    without = dataclasses.replace(two, graphs={k: v for k, v in two.graphs.items() if k != "refine"})
    with pytest.raises(BundleError, match="graph 'refine' is missing"):
        _written(tmp_path, without)
    one = tiny_parts()
    more = dataclasses.replace(one, graphs={**one.graphs, "refine": two.graphs["refine"]})
    with pytest.raises(BundleError, match="unknown graph 'refine'"):
        _written(tmp_path, more)
    blind = dataclasses.replace(one, graphs={**one.graphs, "step": tiny_parts(imagines=False).graphs["step"]})
    with pytest.raises(BundleError, match="'noise_video' is missing"):
        _written(tmp_path, blind)
    with pytest.raises(ValueError, match="steps"):
        type(MODEL).model_validate({**MODEL.model_dump(), "steps": 3})
    assert not any(tmp_path.iterdir())


def test_a_limit_on_surprise_needs_a_bundle_that_imagines(tmp_path: Path) -> None:
    def config(imagines: bool, limit: float | None) -> RunConfig:
        bundle = make_tiny_bundle(tmp_path / f"{imagines}{limit}", imagines=imagines)
        return RunConfig.model_construct(
            bundle=bundle, robot=ROBOT_FILE, trusted_keys=(), allow_demo_key=True,
            monitor=MonitorConfig(surprise_limit=limit),
        )  # fmt: skip

    with pytest.raises(ConfigError, match=r"surprise_limit is set, and tiny\.wam imagines nothing"):
        open_configured_bundle(config(False, 2.0))
    assert open_configured_bundle(config(False, None)).manifest.model.future_knots == ()
    assert open_configured_bundle(config(True, 2.0)).manifest.model.future_knots
