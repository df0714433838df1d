"""The committed table of proofs belongs to the present sources, and the checker finds what is wrong."""

from __future__ import annotations

from tests.proof import prove


def test_every_proof_in_the_table_was_made_of_the_sources_as_they_are() -> None:
    stale = {p.name for p in prove.proofs() if prove.written().get(p.name) != prove.sources_hash(p)}
    assert not stale, "run make proof"
    assert set(prove.written()) == {p.name for p in prove.proofs()}
