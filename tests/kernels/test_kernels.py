"""Each backend equals the reference bit for bit, and the reference equals the formula."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_wam import kernels
from edge_wam.embodiment import load_embodiment
from edge_wam.errors import ContractError, EdgeWamError
from edge_wam.kernels import Backend, cuda, reference
from tests.kernels.conftest import ROOT

same_backend = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
side = st.integers(1, 40)


@st.composite
def resizes(draw: st.DrawFn) -> tuple[tuple[int, int], reference.Rectangle, tuple[int, int], reference.Rectangle]:
    """Image size (height, width), crop, canvas size (height, width), region."""
    width, height, to_width, to_height = (draw(side) for _ in range(4))
    x, y, to_x, to_y, right, below = (draw(st.integers(0, 5)) for _ in range(6))
    return (
        (y + height + below, x + width + right),
        (x, y, width, height),
        (to_y + to_height + right, to_x + to_width + below),
        (to_x, to_y, to_width, to_height),
    )


@given(case=resizes(), seed=st.integers(0, 1 << 30), flip=st.booleans())
@same_backend
def test_canvas_equals_the_reference_bit_for_bit(
    backend: Backend,
    case: tuple[tuple[int, int], reference.Rectangle, tuple[int, int], reference.Rectangle],
    seed: int,
    flip: bool,
) -> None:
    (height, width), crop, canvas, at = case
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = image[::-1] if flip else image
    image.setflags(write=False)
    ours = np.full((3, *canvas), np.float32(7.0))
    theirs = ours.copy()
    kernels.camera_to_canvas(image, crop, ours, at)
    reference.camera_to_canvas(image, crop, theirs, at)
    np.testing.assert_array_equal(ours, theirs)
    outside = np.ones(canvas, bool)
    outside[at[1] : at[1] + at[3], at[0] : at[0] + at[2]] = False
    assert (ours[:, outside] == 7.0).all()


def test_canvas_pixel_is_the_area_average(backend: Backend) -> None:
    """A crop 5 wide and 3 high onto 2 x 2, worked out in fractions."""
    image = np.random.default_rng(5).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    out = np.zeros((3, 2, 2), np.float32)
    kernels.camera_to_canvas(image, (0, 0, 5, 3), out, (0, 0, 2, 2))

    def overlap(source: int, j: int, i: int) -> Fraction:
        step = Fraction(source, 2)
        return max(Fraction(0), min(Fraction(j + 1), (i + 1) * step) - max(Fraction(j), i * step))

    for c in range(3):
        for i in range(2):
            for k in range(2):
                total = sum(
                    overlap(3, y, i) * overlap(5, x, k) * int(image[y, x, c]) for y in range(3) for x in range(5)
                )
                mean = total / (Fraction(3, 2) * Fraction(5, 2))
                assert out[c, i, k] == np.float32(float(mean / Fraction(255, 2) - 1))


def test_canvas_of_equal_size_is_a_copy(backend: Backend) -> None:
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    out = np.zeros((3, 16, 16), np.float32)
    kernels.camera_to_canvas(image, (0, 0, 16, 16), out, (0, 0, 16, 16))
    np.testing.assert_allclose(out, image.transpose(2, 0, 1) / 127.5 - 1, atol=6e-8)
    assert np.array_equal(np.rint((out + 1) * 127.5).astype(np.uint8), image.transpose(2, 0, 1))


def test_the_largest_bright_image_does_not_overflow(backend: Backend) -> None:
    image = np.full((8192, 2048, 3), 255, np.uint8)
    out = np.zeros((3, 2, 2), np.float32)
    kernels.camera_to_canvas(image, (0, 0, 2048, 8192), out, (0, 0, 2, 2))
    assert (out == 1.0).all()


@pytest.mark.parametrize(
    ("crop", "at"),
    [
        ((0, 0, 9, 8), (0, 0, 4, 4)),
        ((-1, 0, 4, 4), (0, 0, 4, 4)),
        ((0, 0, 0, 4), (0, 0, 4, 4)),
        ((0, 5, 4, 4), (0, 0, 4, 4)),
        ((0, 0, 4, 4), (1, 0, 4, 4)),
        ((0, 0, 4, 4), (0, -1, 4, 4)),
    ],
)
def test_a_rectangle_that_leaves_its_image_is_refused(
    backend: Backend, crop: reference.Rectangle, at: reference.Rectangle
) -> None:
    out = np.zeros((3, 4, 4), np.float32)
    with pytest.raises(ContractError, match="leaves the"):
        kernels.camera_to_canvas(np.full((8, 8, 3), 9, np.uint8), crop, out, at)
    assert (out == 0).all()


def test_canvas_refuses_wrong_arrays() -> None:
    image, out, box = np.zeros((4, 4, 3), np.uint8), np.zeros((3, 4, 4), np.float32), (0, 0, 4, 4)
    read_only = out.copy()
    read_only.setflags(write=False)
    for bad_image, bad_out in (
        (image.astype(np.float32), out),
        (image[..., :2], out),
        (image, out.astype(np.float64)),
        (image, out.transpose(0, 2, 1)),
        (image, read_only),
    ):
        with pytest.raises(ContractError):
            kernels.camera_to_canvas(bad_image, box, bad_out, box)
    with pytest.raises(ContractError, match="8192"):
        kernels.camera_to_canvas(np.zeros((1, 8193, 3), np.uint8), (0, 0, 8193, 1), out, box)


@given(seed=st.integers(0, 1 << 30), knots=st.integers(1, 20), axes=st.integers(1, 16))
@same_backend
def test_decoding_equals_the_reference_bit_for_bit(backend: Backend, seed: int, knots: int, axes: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(knots, 32)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf, -0.0])
    position, q01 = rng.normal(size=axes), rng.normal(size=axes)
    q99, relative = q01 + rng.random(axes), rng.random(axes) < 0.5
    ours = kernels.decode_chunk(x, position, q01, q99, relative)
    np.testing.assert_array_equal(ours, reference.decode_chunk(x, position, q01, q99, relative))
    assert np.array_equal(np.isfinite(ours), np.isfinite(x[:, :axes]))


def test_decoding_inverts_the_normalisation_of_the_embodiment(backend: Backend) -> None:
    robot = load_embodiment(ROOT / "robots/metaworld_sawyer.toml")
    rng = np.random.default_rng(3)
    position = robot.vector("rest")
    knots = rng.uniform(robot.vector("position_min"), robot.vector("position_max"), (16, robot.dof))
    x = robot.normalise_action(knots, position)
    decoded = kernels.decode_chunk(
        x, position, robot.vector("action_q01"), robot.vector("action_q99"), np.asarray(robot.relative)
    )
    np.testing.assert_allclose(decoded, knots, atol=1e-6)  # a micrometre: the wire's resolution


def test_decoding_refuses_wrong_arrays(backend: Backend) -> None:
    x, vector, flags = np.zeros((4, 32), np.float32), np.zeros(3), np.zeros(3, bool)
    for bad in (
        (x.astype(np.float64), vector, vector, vector, flags),
        (x[:, :2], vector, vector, vector, flags),
        (x, vector, vector[:2], vector, flags),
        (x, vector, vector, vector.astype(np.float32), flags),
        (x, vector, vector, vector, flags.astype(np.uint8)),
    ):
        with pytest.raises(ContractError):
            kernels.decode_chunk(*bad)


@given(seed=st.integers(0, 1 << 30), tokens=st.integers(1, 70), channels=st.integers(1, 40))
@same_backend
def test_surprise_equals_the_reference_bit_for_bit(backend: Backend, seed: int, tokens: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, observed = rng.normal(size=(2, tokens, channels)).astype(np.float32)
    scale = rng.uniform(0.1, 3.0, channels).astype(np.float32)
    ours = kernels.surprise(predicted, observed, scale)
    assert ours == reference.surprise(predicted, observed, scale)
    formula = np.sqrt(np.mean(((predicted.astype(np.float64) - observed) / scale) ** 2))
    assert ours == pytest.approx(formula, rel=1e-12)


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_surprise_never_hides_a_number_that_is_none(backend: Backend, which: int, value: float) -> None:
    arrays = [np.full((5, 7), 0.5, np.float32), np.full((5, 7), 0.25, np.float32), np.ones(7, np.float32)]
    arrays[which][..., 3] = value
    result = kernels.surprise(*arrays)
    if which == 2 and value == np.inf:
        assert 0 < result < 0.25  # an infinite scale silences its channel and no other
    else:
        assert not np.isfinite(result)


def test_surprise_refuses_wrong_arrays(backend: Backend) -> None:
    latents, scale = np.zeros((5, 7), np.float32), np.ones(7, np.float32)
    for bad in (
        (latents[:0], latents[:0], scale),
        (latents, latents[:4], scale),
        (latents, latents, scale[:6]),
        (latents.astype(np.float64), latents, scale),
    ):
        with pytest.raises(ContractError):
            kernels.surprise(*bad)


def test_a_backend_that_is_not_here_is_refused_by_name() -> None:
    before = kernels.backend()
    try:
        assert kernels.use("numpy") == kernels.backend() == "numpy"
        assert kernels.use("cython") == "cython"
        assert kernels.use("auto") in ("cuda", "cython")
    finally:
        kernels.use("cython" if before == "cython" else "numpy")
    with pytest.raises(EdgeWamError, match="no NVIDIA driver"):
        cuda.open_backend("libno-such-driver.so", Path(__file__))
    with pytest.raises(EdgeWamError, match="were not built"):
        cuda.open_backend("libno-such-driver.so", Path("/nowhere/kernels.fatbin"))
