"""One HTML file per run, made from its recording: what was seen, imagined, planned, executed, and how late."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_wam.errors import ContractError
from edge_wam.report.gather import Decode, read_run
from edge_wam.report.page import render
from edge_wam.report.run import Outcome, RunData

if TYPE_CHECKING:
    from edge_wam.bundle import Bundle

__all__ = ["Outcome", "RunData", "read_run", "render", "write_report"]


def write_report(
    recording: Path,
    out: Path,
    *,
    bundle: Bundle | None = None,
    outcome: Outcome | None = None,
    title: str = "",
    facts: Sequence[tuple[str, str]] = (),
    episode: int = -1,
) -> Path:
    """Write the report of one episode of ``recording`` to ``out`` and return ``out``.

    Args:
        bundle: the verified bundle that was run; with it, imagination is shown as pictures.
        outcome, title, facts, episode: see :func:`edge_wam.report.gather.read_run`.

    Raises:
        ContractError: not a recording of a run, or ``out`` cannot be written.
    """
    decode: Decode | None = None
    scale: Sequence[float] | None = None
    if bundle is not None:
        from edge_wam.policy import Policy  # loads the engine

        decode = Policy(bundle).decode_latents
        scale = bundle.manifest.model.latent_scale
    run = read_run(
        recording, outcome=outcome, title=title, facts=facts, decode=decode, latent_scale=scale, episode=episode
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(out.name + ".part")
        part.write_text(render(run), encoding="utf-8")
        part.replace(out)
    except OSError as error:
        raise ContractError(f"{out}: {error.strerror}", remedy="choose a writable place for the report") from error
    return out
