"""Stages: a file each, with a ``Config`` (unknown keys refused) and ``run(config, context)``. This is the chain."""

STAGES: dict[str, str] = {
    "demonstrations": "Write demonstrations of the scripted experts.",
    "codec": "Train the frame codec.",
    "encoder": "Distil a smaller frame encoder from the codec's, or from a public VAE's.",
    "pretrain": "Train the transformer on demonstrations, and on what its own collector brings.",
    "shrink": "Cut a smaller student out of a teacher and let it learn what the teacher says.",
    "fewstep": "Teach a student to arrive in one or two passes where its teacher arrives in many.",
    "quantise": "Release what drives as well in INT8 as in float; distil it on INT8 if it does not.",
    "release": "Export, calibrate, quantise and sign.",
}
"""Name (of the module here, and of the table in a recipe) and what it does."""
