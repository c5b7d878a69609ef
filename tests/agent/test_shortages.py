"""What counters of a data plane say of its shortages, and when one is over."""

from __future__ import annotations

import pytest
from penstock_agent.shortages import LASTING_SECONDS, Shortage, Shortages, describe
from penstock_embedded.messages import Stats

IDLE = Stats(
    instance_id="one", uptime_seconds=1, packets=0, forwarded=0, dropped={}, flows=0, flow_capacity=1, half_open=0
)
LIMITS = [
    ("no_nat_port", Shortage.NAT_PORTS_EXHAUSTED, "natSource.portFirst..portLast of DataPlane edge"),
    ("table_full", Shortage.FLOW_TABLE_FULL, "flowTableSize of DataPlane edge"),
]


def dropped(**reasons):
    return IDLE.model_copy(update={"dropped": reasons})


@pytest.mark.parametrize(("reason", "shortage", "fix"), LIMITS)
def test_one_drop_begins_it_and_only_a_minute_without_ends_it(reason, shortage, fix):
    shortages = Shortages()
    assert shortages.look(None, 0) == ()
    assert shortages.look(IDLE, 1) == ()
    assert shortages.look(dropped(**{reason: 5}), 2) == (shortage,)
    assert shortages.look(dropped(**{reason: 5}), 1 + LASTING_SECONDS) == (shortage,)
    assert shortages.look(dropped(**{reason: 6}), 1.5 + LASTING_SECONDS) == (shortage,)
    assert shortages.look(dropped(**{reason: 6}), 1 + 2 * LASTING_SECONDS) == (shortage,)
    assert shortages.look(dropped(**{reason: 6}), 2 + 2 * LASTING_SECONDS) == ()
    assert fix in describe(shortage, "edge")


def test_drops_now_and_then_are_one_shortage():
    shortages = Shortages()
    found = [shortages.look(dropped(no_nat_port=second // 45), second) for second in range(1, 600)]
    assert found[44:] == [(Shortage.NAT_PORTS_EXHAUSTED,)] * len(found[44:])


def test_a_process_that_counts_from_zero_lost_nothing():
    shortages = Shortages()
    shortages.look(IDLE, 1)
    assert shortages.look(dropped(table_full=5).model_copy(update={"instance_id": "two"}), 2) == ()


def test_several_readers_share_one_memory():
    shortages = Shortages()
    shortages.look(IDLE, 1)
    more = dropped(no_nat_port=1, table_full=1)
    assert shortages.look(more, 2) == shortages.look(more, 2.1) == tuple(Shortage)[:2]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"recycled": 9_000, "half_open": 10_000}, ()),  # each lasts longer than a second
        ({"recycled": 11_000, "half_open": 10_000}, (Shortage.HANDSHAKES_CUT_SHORT,)),
        ({"packets": 1_000_000, "queue_dropped": 9_000}, ()),
        ({"packets": 1_000_000, "queue_dropped": 12_000}, (Shortage.PACKETS_DROPPED,)),
    ],
)
def test_a_flood_is_told_where_it_can_cost_connections(more, expected):
    shortages = Shortages()
    shortages.look(IDLE, 1)
    assert shortages.look(IDLE.model_copy(update={"uptime_seconds": 2} | more), 2) == expected
