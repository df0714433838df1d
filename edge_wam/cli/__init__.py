"""The command line ``edge-wam``. Commands parse and print; what they do is in :mod:`edge_wam.app`.

Exit codes: 0 good; 1 it ran and the answer is no (task not done, difference found, a check failed); 2 refused (bad
input, nothing was run). Heavy packages are imported by the command that needs them, so that ``--help`` is instant.
"""

from __future__ import annotations

import sys

from edge_wam.errors import EdgeWamError
from firmware_bridge.errors import FirmwareError


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``edge-wam``; ends the process with its exit code."""
    from edge_wam.cli.commands import app
    from edge_wam.cli.show import refusal

    try:
        app(args=arguments, prog_name="edge-wam")
    except (EdgeWamError, FirmwareError) as error:
        refusal(error.what, error.expected, error.remedy)
        sys.exit(2)
    except BrokenPipeError:  # the reader (head, less) has seen enough
        sys.stderr.close()
        sys.exit(1)
