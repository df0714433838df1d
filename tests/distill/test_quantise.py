"""Calibration, folding, the keep-list, and that what is quantised is felt."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from distill.models.config import CONFIGS
from distill.quantise.graph import Levels, clipping, insert_qdq, observe, probe, quantisable, run_feeds
from distill.quantise.histogram import BINS, Histogram, merged
from distill.quantise.keep import edge_blocks, keep_float
from distill.quantise.saturation import saturation
from distill.quantise.sensitivity import (
    Cost,
    Judge,
    actions_of,
    grippers,
    group_of,
    picture,
    restore,
    scan,
    write_table,
)
from distill.quantise.smooth import KINDS, factors, fold, output_error, smooth
from edge_wam.engines.onnx_cpu import OnnxCpuEngine
from edge_wam.engines.qdq_lint import lint
from edge_wam.errors import ConfigError, ContractError
from tests.distill.tiny import EXPORTED, ROBOT, Exported, make_student, step_feed

STREAM = st.lists(
    st.tuples(st.integers(0, 1000), st.integers(1, 400), st.floats(1e-4, 1e4)), min_size=1, max_size=6
)  # fmt: skip


def _batches(stream: list[tuple[int, int, float]]) -> list[NDArray[np.float32]]:
    return [(np.random.default_rng(s).standard_normal(n) * scale).astype(np.float32) for s, n, scale in stream]


@settings(max_examples=40, deadline=None)
@given(stream=STREAM, percent=st.sampled_from([50.0, 90.0, 99.0, 99.99, 100.0]))
def test_percentile_is_numpys_to_one_bin(stream: list[tuple[int, int, float]], percent: float) -> None:
    histogram = Histogram()
    for batch in _batches(stream):
        histogram.add(batch)
    values = np.abs(np.concatenate(_batches(stream)))
    assert histogram.counts.sum() == values.size, "no value is lost when the range grows"
    assert histogram.top <= max(2.0 * values.max(), 2.0**-20) and len(histogram.counts) == BINS, "bounded, and tight"
    wanted = np.percentile(values, percent, method="inverted_cdf")
    assert wanted <= histogram.percentile(percent) * (1 + 1e-6)
    assert histogram.percentile(percent) - wanted <= histogram.top / BINS + 1e-6 * wanted


@settings(max_examples=40, deadline=None)
@given(stream=STREAM, order=st.randoms(use_true_random=False))
def test_merged_histograms_are_the_histogram_of_the_whole_stream(
    stream: list[tuple[int, int, float]], order: object
) -> None:
    whole, parts = Histogram(), []
    for batch in _batches(stream):
        whole.add(batch)
        parts.append(Histogram())
        parts[-1].add(batch)
    order.shuffle(parts)  # type: ignore[attr-defined]
    before = [part.counts.copy() for part in parts]
    together = merged(parts)
    assert together.top == whole.top and together.peak == whole.peak
    np.testing.assert_array_equal(together.counts, whole.counts)
    assert all(np.array_equal(a, part.counts) for a, part in zip(before, parts, strict=True)), "parts stay"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(ContractError, match="a number that is none"):
        Histogram().add(np.array([1.0, bad], np.float32))


def _two_layers() -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    weights = {name: rng.standard_normal((8, 8)).astype(np.float32) for name in ("keep.weight", "int.weight")}
    nodes = [
        helper.make_node("MatMul", ["x", "keep.weight"], ["h"], name="keep"),
        helper.make_node("MatMul", ["h", "int.weight"], ["y"], name="int"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_only_what_is_not_kept_becomes_int8() -> None:
    model = _two_layers()
    nodes = quantisable(model.graph, ["keep"])
    assert [node.name for node in nodes] == ["int"]
    feeds = [{"x": np.random.default_rng(k).standard_normal((1, 4, 8)).astype(np.float32)} for k in range(4)]
    out = insert_qdq(model, nodes, clipping(observe(model, nodes, feeds)))
    tensors = {t.name: numpy_helper.to_array(t) for t in out.graph.initializer}
    assert tensors["keep.weight"].dtype == np.float32 and tensors["int.weight.int8"].dtype == np.int8
    assert "int.weight" not in tensors, "the float copy is gone"
    original = numpy_helper.to_array(model.graph.initializer[1])
    restored = tensors["int.weight.int8"] * tensors["int.weight.scale"]
    assert (np.abs(restored - original) <= tensors["int.weight.scale"] / 2 + 1e-7).all()
    assert (np.abs(tensors["int.weight.int8"]).max(0) == 127).all(), "every output channel uses its whole range"
    assert lint(out) == []
    assert len(model.graph.node) == 2, "the float model stays as it was"
    coarse = insert_qdq(model, nodes, clipping(observe(model, nodes, feeds)), Levels(7, 7))
    codes = {t.name: numpy_helper.to_array(t) for t in coarse.graph.initializer}["int.weight.int8"]
    assert lint(coarse) == [] and np.abs(codes).max() == 7
    (seen,) = (np.asarray(v[0]) for v in run_feeds(probe(coarse, ["h.q"], TensorProto.INT8), ["h.q"], feeds[:1]))
    assert np.abs(seen.astype(int)).max() <= 7, "four bits leave seven codes of an activation, too"


def test_nothing_to_calibrate_on_is_refused() -> None:
    model = _two_layers()
    with pytest.raises(ContractError, match="nothing to calibrate on"):
        observe(model, quantisable(model.graph, []), [])
    with pytest.raises(ContractError, match="nothing to calibrate on"):
        smooth(make_student(EXPORTED)[1], [], [1])


def test_the_ends_stay_float_by_depth() -> None:
    assert {depth: edge_blocks(depth) for depth in (5, 12, 24, 30, 40)} == {5: 1, 12: 1, 24: 2, 30: 3, 40: 3}
    for config in CONFIGS.values():
        keep = keep_float(config)
        for block in (0, config.depth - 1):
            assert f"blocks.{block}." in keep, config.name
    assert keep_float(CONFIGS["1.3b"])[-1] == "blocks.29.", "the last block of a student, whatever its teacher had"
    for edge in (3, -1):
        with pytest.raises(ConfigError, match="stay float"):
            keep_float(CONFIGS["nano"], edge)


# ---- one INT8 layer, bit by bit ----------------------------------------------------------------------------------


def test_an_integer_product_computed_by_hand_is_the_engines(exported: Exported) -> None:
    """int32 sums of int8 codes, times the two scales: within one unit of the product's own resolution."""
    names = [n.name for n in exported.quantised.graph.node if n.op_type == "MatMul" and n.input[1].endswith(".dq")]
    name = names[int(np.random.default_rng(7).integers(len(names)))]
    node = next(n for n in exported.quantised.graph.node if n.name == name)
    tensors = {t.name: numpy_helper.to_array(t) for t in exported.quantised.graph.initializer}
    x, w = node.input[0].removesuffix(".dq"), node.input[1].removesuffix(".dq")
    rows = np.random.default_rng(1).standard_normal((40, tensors[f"{w}.int8"].shape[0])).astype(np.float32)
    rows *= 100 * tensors[f"{x}.scale"]

    def engine(codes: NDArray[np.int8]) -> NDArray[np.float32]:
        from tests.engines.test_requantise import linear, run

        return run(linear(codes, tensors[f"{w}.scale"], float(tensors[f"{x}.scale"]), rows=len(rows)), rows)

    codes = np.clip(np.rint(rows / tensors[f"{x}.scale"]), -128, 127).astype(np.int32)
    unit = tensors[f"{x}.scale"] * tensors[f"{w}.scale"]
    by_hand = (codes @ tensors[f"{w}.int8"].astype(np.int32)).astype(np.float64) * unit
    assert (np.abs(engine(tensors[f"{w}.int8"]) - by_hand) <= unit).all()
    moved = tensors[f"{w}.int8"].copy()
    moved[0, 0] += 1 if moved[0, 0] < 127 else -1
    assert not np.array_equal(engine(moved), engine(tensors[f"{w}.int8"])), "the last bit of one weight is felt"


def _errors(exported: Exported, clip_factor: float, levels: Levels | None) -> float:
    step = exported.graphs["step"]
    feeds = [step_feed(100 + k) for k in range(8)]
    nodes = quantisable(step.graph, keep_float(EXPORTED))
    clip = {name: value * clip_factor for name, value in clipping(observe(step, nodes, feeds)).items()}
    judge = Judge.of(actions_of({"step": step}, feeds), feeds, ROBOT)
    return judge.error(actions_of({"step": insert_qdq(step, nodes, clip, levels)}, feeds))


def test_a_bad_quantiser_is_felt(exported: Exported) -> None:
    """Negative controls: 4 bits, and scales that are eight times too wide. An error that ignores them is no gate."""
    good = _errors(exported, 1.0, None)
    assert 0.0 < good < 0.01
    assert _errors(exported, 1.0, Levels(7, 7)) > 5 * good
    assert _errors(exported, 8.0, None) > 2 * good


def test_codes_that_run_out_are_counted(exported: Exported) -> None:
    feeds = [step_feed(100 + k) for k in range(4)]
    calm = saturation(exported.quantised, feeds)
    assert calm and all(row.share < 0.01 for row in calm), "calibrated on such inputs"
    step = exported.graphs["step"]
    nodes = quantisable(step.graph, keep_float(EXPORTED))
    clip = {name: value / 8 for name, value in clipping(observe(step, nodes, feeds)).items()}
    narrow = saturation(insert_qdq(step, nodes, clip), feeds)
    assert all(row.share > 0.05 for row in narrow) and narrow[0].share >= narrow[-1].share
    engine = OnnxCpuEngine("step", exported.quantised.SerializeToString())
    assert len(calm) == engine.describe().quantised_inputs, "no activation goes uncounted"


# ---- smoothing ---------------------------------------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), spread=st.floats(0.1, 1.5), kinds=st.sets(st.sampled_from(list(KINDS)), min_size=1))
def test_folding_changes_nothing_but_where_a_factor_stands(seed: int, spread: float, kinds: set[str]) -> None:
    wam = make_student(EXPORTED, 3)[1]
    feed = step_feed(seed)
    given_ = [torch.from_numpy(feed[name]) for name in feed]
    with torch.no_grad():
        before = wam.step(*given_)
        generator = torch.Generator().manual_seed(seed)
        scale = {kind: torch.exp(spread * torch.randn(EXPORTED.width, generator=generator)) for kind in KINDS}
        for kind in kinds:
            fold(wam.blocks[1], kind, scale[kind])  # type: ignore[arg-type]
        moved = {name: value.copy() for name, value in feed.items()}
        for name, kind in (("past_kv", "self_out"), ("cross_kv", "cross_out")):
            if kind in kinds:
                moved[name][1, 1] /= scale[kind].numpy()
        after = wam.step(*(torch.from_numpy(moved[name]) for name in moved))
    for a, b in zip(before[:2], after[:2], strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)
    values = after[2][1, 1] * (scale["self_out"] if "self_out" in kinds else 1.0)
    torch.testing.assert_close(values, before[2][1, 1], atol=1e-4, rtol=1e-3)


def test_an_outlier_channel_is_smoothed_away_and_the_choice_is_the_best_tried() -> None:
    rows = torch.randn(300, 32, generator=torch.Generator().manual_seed(1))
    rows[:, 5] *= 60.0
    weight = torch.randn(48, 32, generator=torch.Generator().manual_seed(2))
    plain = output_error(rows, [weight], None)
    s = factors(rows.abs().amax(0), [weight], 0.5)
    assert output_error(rows, [weight], s) < plain / 4
    assert float(s.log().mean().abs()) < 0.2 and int(s.argmax()) == 5


def test_smoothing_a_student_keeps_its_answers_and_helps_where_there_are_outliers() -> None:
    wam = make_student(EXPORTED)[1]
    with torch.no_grad():
        wam.blocks[1].modulation[1, 3] = 40.0  # a channel that AdaLN blows up, as large diffusion transformers have
    feeds = [step_feed(100 + k) for k in range(6)]
    smoothed = smooth(wam, feeds, [1])
    chosen = {choice.kind: choice for choice in smoothed.choices}
    assert chosen["self_in"].alpha is not None and set(chosen) == set(KINDS)
    for choice in smoothed.choices:
        assert choice.errors[str(choice.alpha)] == min(choice.errors.values())
    assert chosen["self_in"].errors[str(chosen["self_in"].alpha)] < 0.75 * chosen["self_in"].errors["None"]
    assert wam.blocks[1].level_gain is None, "the student itself stays as it was"
    assert smoothed.wam.blocks[0].level_gain is None, "blocks that stay float are not touched"
    with torch.no_grad():
        for feed in feeds:
            moved = smoothed.feed(feed)
            a = wam.step(*(torch.from_numpy(feed[name]) for name in feed))
            b = smoothed.wam.step(*(torch.from_numpy(np.asarray(moved[name])) for name in moved))
            torch.testing.assert_close(a[0], b[0], atol=1e-4, rtol=1e-3)


# ---- what costs how much -----------------------------------------------------------------------------------------


def test_the_scan_finds_what_costs_and_putting_it_back_meets_the_limit(exported: Exported) -> None:
    passes = {"step": exported.graphs["step"]}
    feeds = [step_feed(100 + k) for k in range(4)]
    keep = keep_float(EXPORTED)
    clip = {"step": clipping(observe(passes["step"], quantisable(passes["step"].graph, ()), feeds))}
    spoilt = next(n.input[0] for n in passes["step"].graph.node if n.name.endswith("blocks.1.ffn_in"))
    clip["step"][spoilt] *= 40.0
    judge = Judge.of(actions_of(passes, feeds), feeds, ROBOT)
    seen: list[int] = []
    costs = scan(passes, feeds, clip, keep, judge, lambda done, total, remark: seen.append(total - done))
    assert seen[-1] == 0 and len(costs) == len(seen)
    mine = [cost for cost in costs if not cost.kept]
    assert {cost.group for cost in mine} == {f"blocks.1 {kind}" for kind in (*KINDS, "ffn_out")}
    assert mine[0].group == "blocks.1 ffn_in" and mine[0].action_error > 3 * mine[1].action_error
    total = restore(passes, feeds, clip, keep, costs, judge, 1.0)
    assert total[0] == []
    back, error = restore(passes, feeds, clip, keep, costs, judge, total[1] / 2)
    assert back[0] == "blocks.1 ffn_in" and error <= total[1] / 2
    everything, none = restore(passes, feeds, clip, keep, costs, judge, 1e-12)
    assert len(everything) == len(mine) and none == 0.0


def test_committed_knots_weigh_nothing_and_a_moving_gripper_weighs_more() -> None:
    wanted = np.zeros((2, 16, 32), np.float32)
    wanted[1, 8:, 3] = 1.0  # the gripper closes in the second sample
    feeds = [{"prefix_mask": np.zeros((1, 16), np.float32)} for _ in range(2)]
    feeds[0]["prefix_mask"][0, :2] = 1.0
    judge = Judge.of(wanted, feeds, ROBOT)
    off = wanted.copy()
    off[0, :2] += 1.0
    assert judge.error(off) == 0.0
    one, other = wanted.copy(), wanted.copy()
    one[0, 5] += 0.2
    other[1, 5] += 0.2
    assert judge.error(other) > 1.5 * judge.error(one) > 0.0
    near = wanted.copy()
    near[0, 2] += 0.2
    assert judge.error(near) > judge.error(one)
    assert judge.error(np.full_like(wanted, 2.0) + wanted) == pytest.approx(1.0), "the whole range is 1"


def test_the_table_and_the_picture_say_the_same(tmp_path: object) -> None:
    costs = [Cost("blocks.1 ffn_out", 512, 0.0123, False), Cost("video_head", 64, 0.001, True)]
    text = picture(costs, "a < b")
    assert "1.230 %" in text and "0.100 %" in text and "a &lt; b" in text and text.count("#9a9a9a") == 1
    path = tmp_path / "t.csv"  # type: ignore[operator]
    write_table(path, costs)
    assert path.read_text().splitlines()[1:] == ["blocks.1 ffn_out,512,0.0123,0", "video_head,64,0.001,1"]
    assert group_of("wam.blocks.12.cross_q.weight") == "blocks.12 cross_in"
    assert group_of("wam.action_head.2.weight") == "action_head.2"


def test_what_is_commanded_absolutely_is_the_gripper() -> None:
    assert grippers(ROBOT) == (3,)
