"""What counts as a refused request in a log."""

from __future__ import annotations

import pytest

from e2e.installation import refusals_in


@pytest.mark.parametrize(
    "line",
    [
        'events.events.k8s.io is forbidden: User "system:serviceaccount:a:b" cannot create resource "events"',
        "report not written, trying again error='HTTP 403 Forbidden'",
        "request failed code=403",
        '{"status": 403, "path": "/api/v1/pods"}',
    ],
)
def test_refused(line: str) -> None:
    assert refusals_in(f"operator works vips=1\n{line}\nlease acquired") == [line]


@pytest.mark.parametrize("line", ["served vips=403", "flows=1403 code=200", "10.0.0.403", "took 0.403 s"])
def test_not_refused(line: str) -> None:
    assert refusals_in(line) == []
