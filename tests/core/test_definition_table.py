"""The definition table as Python sees it, and the page that is made from it."""

from __future__ import annotations

from pathlib import Path

import penstock_core

from tools.generators import features

ROOT = Path(__file__).resolve().parents[2]


def test_levels_have_the_features_of_the_paper() -> None:
    assert penstock_core.LEVELS == {"off": 0, "basic": 11, "full": 73}
    observed = [c.name for c in penstock_core.COUNTERS if c.observed]
    assert sorted(observed) == sorted(["n_flow", "n_flow_on", "n_fct", "n_packet", "n_cls", "n_ooo", "n_rtr", "n_dpk"])
    assert len(penstock_core.CHANNELS) == 13
    assert [c.name for c in penstock_core.CHANNELS if c.level == "basic"] == ["flow_duration", "fct"]
    assert len(observed) + 5 * len(penstock_core.CHANNELS) == penstock_core.LEVELS["full"]


def test_every_column_of_the_table_is_filled() -> None:
    for counter in penstock_core.COUNTERS:
        assert counter.recorded in penstock_core.LEVELS
        assert counter.kind in ("total", "gauge")
        assert all((counter.unit, counter.event, counter.condition, counter.one_way, counter.two_way))
        assert all((counter.offload, counter.udp))
    for channel in penstock_core.CHANNELS:
        assert all((channel.unit, channel.event, channel.value, channel.condition))
        assert all((channel.one_way, channel.two_way, channel.offload, channel.udp))


def test_the_page_has_the_table() -> None:
    ((path, text),) = features.render().items()
    assert (ROOT / path).read_text() == text, "run `make generate`"


def test_boottime_is_this_machines() -> None:
    before = penstock_core.boottime_us()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(before / 1e6 - uptime) < 5
    assert penstock_core.boottime_us() >= before
