"""Demonstrations of Meta-World's experts as LeRobot v3 datasets; an unfinished one is completed."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from distill.data.generate import generate
from distill.stages.frame import Context, StageConfig
from edge_wam.embodiment import load_embodiment
from edge_wam.sim.world import SHIPPED_TASKS, task_named


class More(StageConfig):
    """Demonstrations of one task that join the on-policy half of the batches: reach needs many different goals,
    because where the goal is must be seen and cannot be guessed."""

    task: str
    episodes: int = Field(ge=1)
    seed: int = Field(ge=0)


class Config(StageConfig):
    """Attributes:
    robot: robot file, relative to the recipe.
    first_seeds: one dataset ``demonstrations-SEED`` from each on; ``per_task`` successful episodes of every task.
    tasks: those of the shipped student when empty.
    more: datasets ``on-policy/TASK-SEED``.
    """

    robot: Path
    first_seeds: tuple[int, ...] = (0,)
    per_task: int = Field(default=110, ge=1)
    tasks: tuple[str, ...] = ()
    more: tuple[More, ...] = ()


def run(config: Config, context: Context) -> None:
    """Write what is missing.

    Raises:
        ConfigError: an unknown task, or seeds that belong to the evaluation.
    """
    embodiment = load_embodiment(context.recipe / config.robot)
    tasks = tuple(task_named(name).name for name in config.tasks) or SHIPPED_TASKS
    for seed in config.first_seeds:
        root = context.work / f"demonstrations-{seed}"
        generate(
            root, embodiment, per_task=config.per_task, seed=seed, tasks=tasks, report=context.named(root.name)
        )  # fmt: skip
    for more in config.more:
        name = f"{task_named(more.task).name}-{more.seed}"
        unfinished, finished = context.work / f"unfinished-{name}", context.work / "on-policy" / name
        if not finished.exists():
            generate(
                unfinished, embodiment, per_task=more.episodes, seed=more.seed, tasks=(more.task,),
                report=context.named(name),
            )  # fmt: skip
            finished.parent.mkdir(exist_ok=True)
            unfinished.rename(finished)
