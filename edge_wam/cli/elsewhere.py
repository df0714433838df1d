"""Commands of another package of the distribution that need an extra: found by entry point, loaded when called.

The robot's code never imports the datacentre's: a name in the group ``edge_wam.commands`` is all that it knows.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

import typer

from edge_wam.errors import ConfigError

GROUP = "edge_wam.commands"
EXTRAS = {"distill": ("Make a student: data, training, INT8, bundle.", "distill,sim")}
"""Command: what it does, and the extras it needs."""


def add_commands(app: typer.Typer) -> None:
    """Let ``app`` know every command of the table. Arguments, ``--help`` included, are the command's own."""
    for name, (text, extras) in EXTRAS.items():
        settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
        add = app.command(name=name, short_help=text, context_settings=settings, add_help_option=False)
        add(_calling(name, extras))


def _calling(name: str, extras: str) -> Callable[[typer.Context], None]:
    def call(context: typer.Context) -> None:
        remedy = f"pip install 'edge-wam[{extras}]'"
        found = list(entry_points(group=GROUP, name=name))
        if not found:
            raise ConfigError(f"the command {name!r} is not installed", remedy=remedy)
        try:
            command: Callable[[list[str]], None] = found[0].load()
            command(context.args)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"the command {name!r} needs the package {error.name!r}, which is not installed", remedy=remedy
            ) from error

    return call
