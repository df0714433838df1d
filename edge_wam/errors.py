"""The one error type that a user meets: it names the thing, what was expected, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EdgeWamError(Exception):
    """A refusal.

    Args:
        what: the thing that is wrong, by name, with the value found.
        expected: what would have been accepted.
        remedy: what the user does next.
    """

    def __init__(self, what: str, *, expected: str = "", remedy: str = "") -> None:
        self.what = what
        self.expected = expected
        self.remedy = remedy
        parts = [what]
        if expected:
            parts.append(f"expected: {expected}")
        if remedy:
            parts.append(f"remedy: {remedy}")
        super().__init__("\n  ".join(parts))


class ConfigError(EdgeWamError):
    """A configuration or embodiment file is refused."""


class BundleError(EdgeWamError):
    """A bundle is malformed, tampered with, unsigned or for another robot."""


class EngineError(EdgeWamError):
    """A graph cannot be loaded, is not what its contract says, or the engine asked for is not on this machine."""


class PolicyError(EdgeWamError):
    """The policy refuses to answer: a non-finite output, a stale or incomplete observation, a failed golden run."""


class ContractError(EdgeWamError):
    """A value that crosses between rooms has the wrong shape, type or a non-finite number."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """The hint for a mistyped key: `` (did you mean 'x'?)`` or the empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
