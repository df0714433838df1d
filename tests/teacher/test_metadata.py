"""A published checkpoint's statistics become our robot file's, or are refused by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.teacher.metadata import load_teacher_robot, relative_keys, with_teacher_statistics
from edge_wam.embodiment import Embodiment, load_embodiment
from edge_wam.errors import ConfigError

ROBOTS = Path(__file__).parents[2] / "robots"
# DROID: seven joints, whose actions are relative, and a gripper, whose actions are not.
Q01 = [-0.380, -0.571, -0.372, -0.604, -0.607, -0.548, -0.691]
Q99 = [0.375, 0.725, 0.369, 0.647, 0.597, 0.658, 0.710]


def _numbers(low: list[float], high: list[float]) -> dict[str, list[float]]:
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    return {"q01": [*low], "q99": [*high], "min": [*low], "max": [*high], "mean": middle, "std": [0.1] * len(low)}


def _document() -> dict[str, Any]:
    joints, gripper = _numbers([-2.5] * 7, [2.5] * 7), _numbers([0.0], [1.0])
    shapes = {key: {"absolute": True, "rotation_type": None, "shape": [size], "continuous": True}
              for key, size in (("joint_position", 7), ("gripper_position", 1))}  # fmt: skip
    return {
        "oxe_droid": {
            "statistics": {
                "state": {"joint_position": joints, "gripper_position": gripper},
                "action": {"joint_position": _numbers(Q01, Q99), "gripper_position": gripper},
            },
            "modalities": {
                "video": {"exterior_image_1_left": {"resolution": [320, 180], "channels": 3, "fps": 15.0}},
                "state": shapes, "action": copy.deepcopy(shapes),
            },
            "embodiment_tag": "oxe_droid",
        }
    }  # fmt: skip


RELATIVE = "relative_action: true\nrelative_action_keys: [joint_position]\n"


def _write(folder: Path, document: object, conf: str = RELATIVE) -> Path:
    (folder / "experiment_cfg").mkdir()
    (folder / "experiment_cfg" / "metadata.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "experiment_cfg" / "conf.yaml").write_text(conf, encoding="utf-8")
    return folder


def _robot(dof: int) -> Embodiment:
    """As many axes as asked, each like the first of a real robot file, with room for DROID's."""
    robot = load_embodiment(ROBOTS / "arm6.toml")
    axes = [robot.axes[0].model_dump() | {"name": f"axis{i}", "drive": None} for i in range(dof)]
    return Embodiment.model_validate(robot.model_dump() | {"axes": axes})


def test_droid_s_statistics_land_on_the_axes_in_order(tmp_path: Path) -> None:
    folder = _write(tmp_path, _document())
    robot = with_teacher_statistics(_robot(8), load_teacher_robot(folder, "oxe_droid"), relative_keys(folder))
    np.testing.assert_array_equal(robot.relative, [True] * 7 + [False])
    np.testing.assert_allclose(robot.vector("action_q01"), [*Q01, 0.0])
    np.testing.assert_allclose(robot.vector("action_q99"), [*Q99, 1.0])
    np.testing.assert_allclose(robot.vector("state_q99"), [2.5] * 7 + [1.0])
    # DreamZero's own decoding: q01/q99 to [-1, 1], relative keys on top of the last observed state.
    position = np.full(8, 0.2)
    top = np.array([*Q99, 1.0])
    coded = robot.normalise_action((top + np.where(robot.relative, position, 0.0))[None], position)
    np.testing.assert_allclose(coded[0, :8], 1.0, atol=1e-6)


def test_limits_stay_the_robot_s_own(tmp_path: Path) -> None:
    folder, before = _write(tmp_path, _document()), _robot(8)
    after = with_teacher_statistics(before, load_teacher_robot(folder, "oxe_droid"), relative_keys(folder))
    for key in ("position_min", "position_max", "velocity_max", "acceleration_max", "jerk_max"):
        np.testing.assert_array_equal(after.vector(key), before.vector(key))


def test_a_checkpoint_without_relative_actions_has_absolute_axes(tmp_path: Path) -> None:
    assert relative_keys(_write(tmp_path, _document(), RELATIVE.replace("true", "false"))) == set()


def _without_statistics(d: dict[str, Any]) -> None:
    del d["oxe_droid"]["statistics"]["action"]["gripper_position"]


def _another_size(d: dict[str, Any]) -> None:
    d["oxe_droid"]["modalities"]["action"]["joint_position"]["shape"] = [6]


def _uneven(d: dict[str, Any]) -> None:
    d["oxe_droid"]["statistics"]["state"]["joint_position"]["q99"].pop()


def _no_number(d: dict[str, Any]) -> None:
    d["oxe_droid"]["statistics"]["action"]["joint_position"]["q01"][2] = float("nan")


def _too_wide(d: dict[str, Any]) -> None:
    d["oxe_droid"]["modalities"]["action"]["joint_position"]["shape"] = [40]
    d["oxe_droid"]["statistics"]["action"]["joint_position"] |= {"q01": [-1.0] * 40, "q99": [1.0] * 40}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_without_statistics, "'gripper_position' of 1"), (_another_size, "'joint_position' of 6"),
        (_uneven, "7 values of q01 and 6"), (_no_number, "q01.2"), (_too_wide, "41 action numbers"),
    ],
)  # fmt: skip
def test_statistics_that_do_not_fit_are_refused(damage: object, says: str, tmp_path: Path) -> None:
    document = _document()
    assert callable(damage)
    damage(document)
    with pytest.raises(ConfigError, match=says):
        load_teacher_robot(_write(tmp_path, document), "oxe_droid")


def test_another_robot_is_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path, _document())
    teacher = load_teacher_robot(folder, "oxe_droid")
    with pytest.raises(ConfigError, match="has 6 axes"):
        with_teacher_statistics(_robot(6), teacher, relative_keys(folder))
    with pytest.raises(ConfigError, match="did you mean 'oxe_droid'"):
        load_teacher_robot(folder, "oxe_droit")
    with pytest.raises(ConfigError, match="relative action key 'wrist'"):
        with_teacher_statistics(_robot(8), teacher, frozenset({"wrist"}))
    (folder / "experiment_cfg" / "metadata.json").write_text("[", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_teacher_robot(folder, "oxe_droid")
    (folder / "experiment_cfg" / "conf.yaml").write_text("[", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"conf\.yaml"):
        relative_keys(folder)
