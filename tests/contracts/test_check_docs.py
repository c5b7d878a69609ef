"""References of the documentation are checked: what leads nowhere is named, everything else passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_docs
from tools.check_docs import Tree

TREE = Tree(frozenset({"docs/page.md", "core/flow.c", "core/flow.h", "Makefile"}))


def test_the_repository_has_no_reference_that_leads_nowhere() -> None:
    assert list(check_docs.problems(Tree.here())) == []


def test_links_and_anchors(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One `Two`\n")
    text = "[a](other.md) [b](other.md#one-two) [c](https://example.org) [d](gone.md) [e](other.md#three)\n"
    found = list(check_docs.broken_links(tmp_path / "page.md", text))
    assert found == ["gone.md: no such file", "other.md#three: no such heading"]


def test_paths_in_code(tmp_path: Path) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "flow.c").touch()
    text = "`core/flow.c` `core/` `core/gone.c` `not/ours` `core/<name>`\n```\n`core/other.c`\n```\n"
    assert list(check_docs.missing_files(tmp_path / "page.md", text, TREE)) == ["`core/gone.c`: no such file or folder"]


def test_targets_of_make() -> None:
    text = "run `make demo` or `make nothing`, and make sure\n"
    assert list(check_docs.unknown_targets(text, "demo: build\n")) == ["`make nothing`: no such target"]


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("    penstock run --files x --root y", ""),
        ("`penstock top --loud`", "--loud"),
        ("    helm install penstock charts/penstock --wait", ""),
        ("    kubectl exec deployment/penstock-operator -- penstock init --loud", "--loud"),
        ("    penstock run    # --loud is not one", ""),
    ],
)
def test_options(line: str, option: str) -> None:
    found = list(check_docs.unknown_options(line, {"--files", "--root"}))
    assert [problem.rpartition(" ")[2] for problem in found] == ([option] if option else [])


def test_constants_and_sources_in_comments() -> None:
    assert list(check_docs.unknown_constants("LBRL_A and LBRL_B", {"LBRL_A"})) == ["LBRL_B: no such constant"]
    text = '#include "gone.h"\n/* see flow.c, flow.h and epoch.h */\nint x; // and rest.c\n'
    found = list(check_docs.unknown_sources(text, TREE))
    assert found == ["comment names epoch.h: no such file", "comment names rest.c: no such file"]
