"""Each claim of the page on security names tests, and these exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "explanation" / "security.md"
CLAIMS = [
    line.strip("|").split("|")
    for line in PAGE.read_text().splitlines()
    if line.startswith("| ") and "`tests/" in line.rpartition("|")[0].rpartition("|")[2]
]


def test_the_page_has_claims() -> None:
    tables = re.findall(r"^\| claim \| test \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE.read_text(), re.MULTILINE)
    assert sum(table.count("\n") for table in tables) == len(CLAIMS) >= 20


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim[0].strip()[:60])
def test_the_tests_of_a_claim_exist(claim: list[str]) -> None:
    _, tests = claim
    named = [part.strip() for part in tests.split(";")]
    for part in named:
        path, _, names = part.partition(": ")
        text = (ROOT / path.strip("`")).read_text()
        for name in names.split(", "):
            assert re.search(rf"\b(def|static void|int) {name.strip('`')}\(", text), part
