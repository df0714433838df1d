"""The public teacher: DreamZero's world action model, its checkpoints, its sampler, its rollout.

Paper: "World Action Models are Zero-shot Policies", arXiv 2602.15922. Names of modules and parameters are those of its
published checkpoints, so that a checkpoint's keys need no translation. See docs/teacher.md.
"""
