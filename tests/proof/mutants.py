"""Mutants of C: small deliberate mistakes, one at a time, always the same ones for the same source.

An operator is a pattern in the source, comments and preprocessor lines apart, and what takes its place. A mutant's name
says the line's text and the change, and not the line's number: it stays valid while other lines come and go.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_SWAPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("relation", r"(?<![<>=!-])(<=)(?!=)", ("<", "==")),
    ("relation", r"(?<![<>=!-])(>=)(?!=)", (">", "==")),
    ("relation", r"(?<![<>=!-])(<)(?![<=])", ("<=", ">=")),
    ("relation", r"(?<![<>=!-])(>)(?![>=])", (">=", "<=")),
    ("relation", r"(?<![<>=!])(==)(?!=)", ("!=",)),
    ("relation", r"(!=)", ("==",)),
    ("logic", r"(&&)", ("||",)),
    ("logic", r"(\|\|)", ("&&",)),
    ("logic", r"(?<![\w)])(!)(?=[\w(])", ("",)),
    ("arithmetic", r"(?<=[\w)\]] )(\+)(?= [\w(])", ("-",)),
    ("arithmetic", r"(?<=[\w)\]] )(-)(?= [\w(])", ("+",)),
    ("arithmetic", r"(?<=[\w)\]] )(\*)(?= [\w(])", ("/",)),
    ("arithmetic", r"(?<=[\w)\]] )(/)(?= [\w(])", ("*",)),
    ("arithmetic", r"(?<=[\w)\]] )(%)(?= [\w(])", ("/",)),
    ("sign", r"(?<=[(=,?:] )(-)(?=[\w(])|(?<=\()(-)(?=[\w(])|(?<=return )(-)(?=[\w(])", ("",)),
    ("bits", r"(?<=[\w)\]] )(>>)(?= )", ("<<",)),
    ("bits", r"(?<=[\w)\]] )(<<)(?= )", (">>",)),
    ("bits", r"(?<=[\w)\]] )(&)(?= [\w(])", ("|",)),
    ("bits", r"(?<=[\w)\]] )(\|)(?= [\w(])", ("&",)),
    ("step", r"(\+\+)", ("--",)),
    ("step", r"(--)", ("++",)),
    ("assignment", r"(\+=)", ("-=", "=")),
    ("assignment", r"(-=)", ("+=", "=")),
    ("assignment", r"(\|=)", ("&=",)),
    ("constant", r"(?<![\w.])(\d+|0x[0-9A-Fa-f]+)(?=[uU]?\b)(?![\w.]*\.)", ("+1",)),
    ("constant", r"\b(true)\b", ("false",)),
    ("constant", r"\b(false)\b", ("true",)),
    ("transition", r"\b(S\(\w+\))(?=[,}])", ("NO",)),
    ("transition", r"(?<=[{ ])(NO)(?=[,}])", ("S(RUN)", "S(DISARMED)")),
)  # fmt: skip
_STATEMENT = re.compile(r"^(?P<indent>\s+)"
                        r"(?!return\b|break\b|continue\b|const\b|static\b|case\b|default\b|for\b|else\b)"
                        r"(?P<what>[\w*(][^{}]*;)\s*$")  # fmt: skip
_DECLARATION = re.compile(r"^\s+(?:u?int\d+_t|bool|size_t|\w+_t)\s+\**\w+(\[|;|\s*=)")
_CONDITION = re.compile(r"^(\s*(?:\} else )?(?:if|while) \()(.*)(\) \{)\s*$")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed line; ``name`` is unique within its file."""

    file: str
    line: int
    name: str
    text: str


def _without_comments(source: str) -> list[str]:
    """The source's lines with comments blanked out, columns kept."""
    blanked = re.sub(r"/\*.*?\*/", lambda found: re.sub(r"[^\n]", " ", found[0]), source, flags=re.DOTALL)
    return blanked.splitlines()


def _changes(line: str) -> Iterator[tuple[str, str]]:
    """(what was changed, the new line) for every operator at every place of one line."""
    for kind, pattern, others in _SWAPS:
        for found in re.finditer(pattern, line):
            group = next(g for g in range(1, (found.re.groups or 0) + 1) if found[g] is not None)
            before, after = line[: found.start(group)], line[found.end(group) :]
            for other in others:
                new = str(int(found[group], 0) + 1) if other == "+1" else other
                at = found.start(group) + 1 - (len(line) - len(line.lstrip()))
                yield f"{kind} at {at}: {found[group]} -> {new or 'nothing'}", before + new + after
    if (found := _CONDITION.match(line)) is not None:
        for value in ("true", "false"):
            if not (value == "true" and "while" in found[1]):
                yield f"condition: {value}", f"{found[1]}{value}{found[3]}"
    if (found := _STATEMENT.match(line)) is not None and not _DECLARATION.match(line):
        yield "statement: removed", f"{found['indent']};"


def mutants(file: str, source: str) -> list[Mutant]:
    """All mutants of a source file, in its order."""
    lines = source.splitlines()
    seen: Counter[str] = Counter()
    out = []
    for number, line in enumerate(_without_comments(source)):
        code = line.strip()
        if not code or code.startswith(("#", "static_assert")):
            continue
        for what, new in _changes(line.rstrip()):
            name = f"{code}  [{what}]"
            seen[name] += 1
            if seen[name] > 1:
                name += f" #{seen[name]}"
            text = "\n".join([*lines[:number], new, *lines[number + 1 :], ""])
            out.append(Mutant(file, number + 1, name, text))
    return out
