"""PyTorch on one thread (two cores are shared with whatever else is being tested); one export for all tests."""

from __future__ import annotations

import logging

import pytest
import torch

from distill.export import export_graphs
from distill.quantise.keep import keep_float
from distill.quantise.student import quantise_graph
from tests.distill.tiny import EXPORTED, Exported, make_student, step_feed


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _no_diary_of_checkpoints() -> None:
    """A line for every tensor, which pytest would keep: as long as a training of the tests itself."""
    logging.getLogger("c10d-NullHandler-dcp_logger").setLevel(logging.ERROR)


@pytest.fixture(scope="session")
def exported() -> Exported:
    codec, wam = make_student(EXPORTED)
    logging.disable(logging.CRITICAL)  # pytest would keep the exporter's trace, which takes longer than the export
    try:
        graphs = export_graphs(codec, wam)
    finally:
        logging.disable(logging.NOTSET)
    feeds = [step_feed(100 + k) for k in range(16)]
    return Exported(codec, wam, graphs, quantise_graph(graphs["step"], keep_float(EXPORTED), feeds))
