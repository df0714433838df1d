"""Stages: a file each, with a ``Config`` (unknown keys refused) and ``run(config, context)``. This is the chain."""

STAGES: dict[str, str] = {
    "demonstrations": "Write demonstrations of the scripted experts.",
    "codec": "Train the frame codec.",
    "pretrain": "Train the transformer on demonstrations, and on what its own collector brings.",
    "release": "Export, calibrate, quantise and sign.",
}
"""Name (of the module here, and of the table in a recipe) and what it does."""
