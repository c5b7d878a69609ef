"""n_active, active_us and n_turn beside HTTP/1.1 servers that know which requests they have and had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.active_flows import Comparison, compare
from tests.support.dataplane import RunningDataplane, running_dataplane
from tests.support.lab import Lab
from tests.support.lab import lab as build_lab

pytestmark = pytest.mark.netns

SECONDS = 8.0
ERROR = 0.05
TRIES = 3  # where the machine is busy, a server learns late of what has come and gone
CLIENTS = 20  # whose last requests end without an answer
LATE_SECONDS = 0.05  # Linux acknowledges some 40 ms late where it has nothing to say


@pytest.fixture(scope="module")
def balanced() -> Iterator[tuple[Lab, RunningDataplane]]:
    with build_lab("pn-act", 1, start_servers=False) as lab, running_dataplane(lab) as dataplane:
        yield lab, dataplane
        dataplane.withdraw()


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["new", "kept_alive", "kept_alive_busy", "slow", "large"])
def test_within_five_percent_of_what_the_server_knows(
    balanced: tuple[Lab, RunningDataplane], kind: str, tmp_path: Path
) -> None:
    tried: list[Comparison] = []
    while len(tried) < TRIES and not (tried and abs(tried[-1].error) <= ERROR):
        tried.append(compare(*balanced, tmp_path, kind, SECONDS))
        assert tried[-1].frames > SECONDS * 2
        assert tried[-1].known > 1
        assert tried[-1].requests - CLIENTS <= tried[-1].answered <= tried[-1].requests
    assert abs(tried[-1].error) <= ERROR, tried


@pytest.mark.parametrize("kind", ["kept_alive_short", "middling_short", "quick_short"])
def test_an_answer_of_one_segment_lasts_until_it_is_acknowledged(
    balanced: tuple[Lab, RunningDataplane], kind: str, tmp_path: Path
) -> None:
    """Which a client that has nothing to say may do late: quick answers look longer than they were."""
    found = compare(*balanced, tmp_path, kind, SECONDS)
    assert found.rate > 10
    assert -ERROR * found.known < found.measured - found.known < LATE_SECONDS * found.rate, found
    assert found.requests - CLIENTS <= found.answered <= found.requests


def test_requests_that_are_sent_together_are_answered_once(
    balanced: tuple[Lab, RunningDataplane], tmp_path: Path
) -> None:
    found = compare(*balanced, tmp_path, "pipelined", SECONDS)
    assert found.requests / 4 - CLIENTS <= found.answered <= found.requests / 4


@pytest.mark.alone
def test_quick_answers_are_told_apart_where_clients_acknowledge_at_once(
    balanced: tuple[Lab, RunningDataplane], tmp_path: Path
) -> None:
    late, prompt = (compare(*balanced, tmp_path, kind, SECONDS) for kind in ("quick_short", "quick_short_prompt"))
    assert prompt.excess < late.excess / 2


def test_websocket_messages_that_are_answered(balanced: tuple[Lab, RunningDataplane], tmp_path: Path) -> None:
    found = compare(*balanced, tmp_path, "websocket", SECONDS)
    assert found.rate > 10
    assert -ERROR * found.known < found.measured - found.known < LATE_SECONDS * found.rate, found


def test_websocket_messages_that_need_no_answer_look_outstanding(
    balanced: tuple[Lab, RunningDataplane], tmp_path: Path
) -> None:
    found = compare(*balanced, tmp_path, "websocket_unanswered", SECONDS)
    assert found.known == 0
    assert found.measured > 10
