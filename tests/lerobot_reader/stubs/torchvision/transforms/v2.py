"""Names that LeRobot imports and that reading a dataset does not use."""

from __future__ import annotations


class _Nothing:
    """A base class of augmentations there; nothing is made of it here."""


Transform = functional = _Nothing
