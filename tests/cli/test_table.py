"""What `penstock top` shows of agents' states."""

from __future__ import annotations

import io

from penstock_agent.state import AgentState, BackendView, DataPlaneView, Durations
from penstock_cli.table import lines, render, seconds
from rich.console import Console


def backend(address: str, **changes: object) -> BackendView:
    values: dict[str, object] = {
        "id": address,
        "address": address,
        "port": 8080,
        "slot": 0,
        "state": "active",
        "healthy": True,
        "health_error": "",
        "weight": 1.0,
        "wanted": 1.0,
        "open_flows": 3,
        "flows": 1234,
        "packets": 9,
        "bytes": 900,
        "flow_rate": 10.0,
        "fct": Durations(samples=128, mean=0.0042, p50=0.003, p90=0.011),
        "flow_duration": None,
    }
    return BackendView.model_validate(values | changes)


def state(*backends: BackendView, **changes: object) -> AgentState:
    vip = {
        "id": "0" * 16,
        "key": "shop/web:80/TCP",
        "namespace": "shop",
        "name": "web",
        "addresses": ["203.0.113.10"],
        "port": 80,
        "protocol": "TCP",
        "scheduler": "sed",
        "policy": "little",
        "mode": "Active",
        "fallback": "lsq",
        "fallback_reason": "",
        "fail_open": False,
        "paused": False,
        "errors": [],
        "warnings": [],
        "frame_age": 0.1,
        "steps": {},
        "held": {},
        "write_errors": 0,
        "backends": backends,
    }
    link = DataPlaneView(
        connected=True,
        instance_id="i",
        version="0.1.0",
        flows=12,
        flow_capacity=65536,
        half_open=0,
        packets=1000,
        forwarded=990,
        dropped={"no_flow": 10},
        reattached_flows=0,
        error="",
    )
    return AgentState.model_validate(
        {
            "version": "0.1.0",
            "node": "node-1",
            "dataplane": "edge",
            "time": 0.0,
            "uptime": 1.0,
            "settled": True,
            "link": link,
            "source_error": "",
            "source_ages": {},
            "announced": ["203.0.113.10"],
            "turns": 1,
            "turn_seconds": 0.001,
            "late_seconds": 0.0,
            "health_checks": 0,
            "health_lag": 0.0,
            "applies": 1,
            "apply_failures": 0,
            "vips": [vip | changes],
        }
    )


def shown(*states: AgentState, problems: tuple[str, ...] = ()) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(render(states, problems))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_bases_have_a_column_where_a_policy_sets_them() -> None:
    assert "base" not in shown(state(backend("10.0.0.1")))
    header, first, second = (
        line
        for line in shown(state(backend("10.0.0.1", base=2.5), backend("10.0.0.2"))).splitlines()
        if "base" in line or "10.0.0." in line
    )
    assert header.split()[:5] == ["│", "backend", "state", "weight", "base"]
    assert first.split()[:5] == ["│", "10.0.0.1:8080", "active", "1", "2.5"]
    assert second.split()[4] == "-"


def test_a_row_has_weight_rate_share_and_latencies() -> None:
    text = shown(state(backend("10.0.0.1"), backend("10.0.0.2", weight=3.0, flow_rate=30.0)))
    row = next(line for line in text.splitlines() if "10.0.0.2:8080" in line)
    for part in ("active", "3", "30.0", "75%", "4.2 ms", "3 ms", "11 ms", "1,234"):
        assert part in row
    assert "shop/web" in text
    assert "little (Active)" in text


def test_the_heaviest_backend_has_the_longest_bar() -> None:
    rows = shown(state(backend("10.0.0.1"), backend("10.0.0.2", weight=4.0))).splitlines()
    bars = {address: next(r for r in rows if address in r).count("█") for address in ("10.0.0.1", "10.0.0.2")}
    assert bars == {"10.0.0.1": 3, "10.0.0.2": 12}


def test_a_failed_backend_says_why() -> None:
    assert "failed: connection refused" in shown(
        state(backend("10.0.0.1", healthy=False, health_error="connection refused"))
    )


def test_what_is_not_known_yet_is_a_dash_not_a_zero() -> None:
    row = next(line for line in shown(state(backend("10.0.0.1", weight=None, fct=None))).splitlines() if "10.0" in line)
    assert row.count("-") >= 4


def test_handshake_and_first_byte_are_shown_where_they_are_measured() -> None:
    times = Durations(samples=5, mean=0.002, p50=0.0015, p90=0.004)
    text = shown(state(backend("10.0.0.1", handshake=times), backend("10.0.0.2")))
    assert "handshake" in text
    assert "1.5 ms" in next(line for line in text.splitlines() if "10.0.0.1:" in line)
    assert "1st byte" not in text
    assert "handshake" not in shown(state(backend("10.0.0.1")))


def test_trouble_of_a_vip_and_of_an_agent_is_shown() -> None:
    text = shown(
        state(
            backend("10.0.0.1"),
            fallback_reason="stale frame",
            fail_open=True,
            panic=True,
            no_path=True,
            paused=True,
            errors=["port taken"],
        ),
        problems=("node-2: no answer",),
    )
    parts = ("using lsq: stale frame", "all backends fail", "few backends pass", "no packet of any backend", "paused")
    for part in (*parts, "port taken", "node-2: no answer"):
        assert part in text


def test_no_agent_is_said() -> None:
    assert "no agent found" in shown()


def test_durations_have_the_unit_that_fits() -> None:
    assert [seconds(value) for value in (0.00005, 0.0123, 1.5)] == ["50 us", "12.3 ms", "1.5 s"]


def test_addresses_of_ipv6_are_in_brackets() -> None:
    shown = "\n".join(lines([state(backend("2001:db8::1"), backend("10.0.0.1"))]))
    assert "[2001:db8::1]:8080" in shown
    assert "10.0.0.1:8080" in shown


def test_plain_lines_say_what_the_table_says() -> None:
    shown = list(lines([state(backend("10.0.0.1"))], ["somebody: gave no answer"]))
    assert shown[0].startswith("node ")
    assert any("shop/web  203.0.113.10 80/TCP  little (Active)" in line for line in shown)
    assert any("10.0.0.1:8080" in line and "4.2 ms" in line for line in shown)
    assert shown[-1] == "somebody: gave no answer"
