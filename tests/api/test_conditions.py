"""Conditions change only when something changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from penstock_api import Condition, ConditionStatus, ConditionType, Reason, get_condition, is_true, set_condition
from penstock_api.conditions import MESSAGE_LIMIT, PENDING

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def ready(conditions: tuple[Condition, ...]) -> Condition:
    condition = get_condition(conditions, ConditionType.READY)
    assert condition is not None
    return condition


def test_the_first_change_sets_the_time_without_fractions() -> None:
    conditions = set_condition(PENDING, ConditionType.READY, True, Reason.READY, "", 1, NOW)
    assert ready(conditions).last_transition_time == NOW.replace(microsecond=0)
    assert ready(conditions).to_dict()["lastTransitionTime"] == "2026-03-01T12:00:00Z"
    assert is_true(conditions, ConditionType.READY)


def test_the_time_stays_while_the_status_stays() -> None:
    before = set_condition((), ConditionType.READY, False, Reason.NO_BACKENDS, "none", 1, NOW)
    after = set_condition(before, ConditionType.READY, False, Reason.FAIL_OPEN, "all fail", 2, LATER)
    assert ready(after).last_transition_time == ready(before).last_transition_time
    assert (ready(after).reason, ready(after).observed_generation) == ("FailOpen", 2)


def test_the_same_again_is_equal() -> None:
    before = set_condition(PENDING, ConditionType.READY, None, Reason.PENDING, "wait", 1, NOW)
    assert set_condition(before, ConditionType.READY, None, Reason.PENDING, "wait", 1, LATER) == before


def test_the_order_stays() -> None:
    conditions: tuple[Condition, ...] = PENDING
    for kind in (ConditionType.ACCEPTED, ConditionType.PROGRAMMED, ConditionType.READY):
        conditions = set_condition(conditions, kind, True, Reason.READY, "", 1, NOW)
    assert [condition.type for condition in conditions] == ["Ready", "Accepted", "Programmed"]


@pytest.mark.parametrize("kind", [ConditionType.RECONCILING, ConditionType.STALLED])
@pytest.mark.parametrize("status", [False, None, ConditionStatus.FALSE])
def test_some_are_absent_unless_true(kind: ConditionType, status: bool | ConditionStatus | None) -> None:
    shown = set_condition(PENDING, kind, True, Reason.PROGRESSING, "", 1, NOW)
    assert is_true(shown, kind)
    assert get_condition(set_condition(shown, kind, status, Reason.READY, "", 1, LATER), kind) is None
    assert set_condition(PENDING, kind, status, Reason.READY, "", 1, NOW) == PENDING


def test_long_messages_are_cut_to_what_the_schema_holds() -> None:
    message = ready(set_condition((), "Ready", True, Reason.ERROR, "x" * 5000, 1, NOW)).message
    assert len(message) == MESSAGE_LIMIT
    assert message.endswith("...")


def test_every_type_and_reason_has_a_meaning() -> None:
    for choice in (ConditionType, Reason):
        assert set(choice.meanings()) == {member.value for member in choice}
