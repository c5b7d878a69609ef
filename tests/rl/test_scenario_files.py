"""Scenario files as people write them, right and wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock_rl.scenarios import ScenarioError, load

from tests.support.scenario_files import raw_scenarios

GOOD = """\
name: mine
servers:
  - {count: 2, cores: 4}
  - {cores: 8}
arrivals:
  load: 0.8
"""


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(ScenarioError) as raised:
        load(path)
    return str(raised.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def test_defaults_are_those_of_the_reference(path: Path) -> None:
    path.write_text(GOOD)
    found = load(path)
    assert (found.duration, found.warm_up, found.interval) == (200, 30, 0.2)
    assert (found.features.value, found.forwarding.value, found.balancers.count) == ("full", "NAT", 1)
    assert [group.cores for group in found.each_server] == [4, 4, 8]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "count: 2",
            "count: 0",
            "3: Scenario mine: servers[0].count: must be at least 1 (is 0); use a value of at least 1",
        ),
        ("count: 2", "count: 1025", "3: Scenario mine: servers[0].count: must be at most 1024"),
        ("cores: 8", "cores: '8'", '4: Scenario mine: servers[1].cores: must be a number (without quotes) (is "8")'),
        ("cores: 8", "cors: 8", "4: Scenario mine: servers[1].cors: unknown field; did you mean cores?"),
        ("cores: 8", "cores: .inf", "4: '.inf' is no float that JSON has"),
        ("cores: 8", "cores: 8, backlog: 5", "4: Scenario mine: servers[1].backlog: goes with a limit"),
        ("cores: 8", "cores: 8, quota: {cpus: 1, period: 7}", "servers[1].quota.period: must be at most 1.0 (is 7)"),
        (
            "load: 0.8",
            "load: 0.8\n  rate: 9",
            "Scenario mine: arrivals.load: exactly one of load, peakLoad",
        ),
        ("load: 0.8", "diurnal: {}", "Scenario mine: arrivals.load: exactly one of load, peakLoad"),
        ("load: 0.8", "load: 0.8\n  ramp: {first: 0, last: 1}\n  diurnal: {}", "arrivals.modulated: at most one of"),
        ("load: 0.8", "load: 0", "6: Scenario mine: arrivals.load: must be more than 0.0 (is 0); use a value of more"),
        (
            "load: 0.8",
            "load: 0.8\n  mmpp: {factors: [1, 2], dwell: [1]}",
            "arrivals.mmpp.dwell: must have at least 2 item",
        ),
        (
            "load: 0.8",
            "load: 0.8\n  mmpp: {factors: [1, 2], dwell: [1, 2, 3]}",
            "mmpp.dwell: must have a time for each",
        ),
        ("load: 0.8", "load: 0.8\n  ramp: {first: 1, last: 2, begin: 200}", "arrivals.ramp: begins after the end"),
        ("name: mine", "name: My Own", "1: Scenario My Own: name: must be a DNS label of at most 63 characters"),
        ("name: mine", "name: mine\nduration: 20", "warmUp: must be less than duration; lower it"),
        ("name: mine", "name: mine\nfeatures: all", "features: must be one of 'off', 'basic' or 'full'"),
        (
            "name: mine",
            "name: mine\nbalancers: {count: 2, split: [1]}",
            "2: Scenario mine: balancers.split: must have a num",
        ),
        (
            "name: mine",
            "name: mine\nclasses: [{}, {}]",
            "2: Scenario mine: classes: each class must have a name of its own",
        ),
        ("name: mine", "name: mine\nclasses: [{requests: 1.5}]", "classes[0].requests: must be a whole number unless"),
        ("name: mine", "name: mine\nclasses: [{idle: 5}]", "classes[0].idle: goes with idleShare"),
        ("name: mine", "name: mine\nclasses: [{think: 5}]", "classes[0].think: needs more than one request"),
        ("name: mine", "name: mine\nclasses: [{work: {alpha: 2}}]", "work.alpha: belongs to the distribution pareto"),
        (
            "name: mine",
            "name: mine\ndisturbances: [{}]",
            "disturbances[0].noisyNeighbor: each item must be exactly one",
        ),
        (
            "name: mine",
            "name: mine\ndisturbances:\n- failure: {at: 5, servers: [3]}",
            "2: Scenario mine: disturbances: names a server that is not there",
        ),
        (
            "name: mine",
            "name: mine\ndisturbances:\n- failure: {at: 5, lasting: [9, 5]}",
            "3: Scenario mine: disturbances[0].failure.lasting: the first of two numbers must be the smaller one",
        ),
        (
            "name: mine",
            "name: mine\ndisturbances:\n- failure: {at: 5, lasting: [1, 2, 3]}",
            "disturbances[0].failure.lasting: must be a number from 0.001 to 86400, or a list of two (is [1, 2, 3])",
        ),
        ("cores: 4}", "cores: 4", "4: not YAML"),
        ("name: mine", "name: mine\n---\nname: other", "has 2 documents, a scenario is one"),
        (GOOD, "- a list", "must be a map with the fields of a scenario"),
        (GOOD, "", "has 0 documents, a scenario is one"),
    ],
)
def test_a_wrong_file_is_refused_with_line_field_value_and_fix(
    path: Path, before: str, after: str, message: str
) -> None:
    found = refusal(path, GOOD.replace(before, after, 1))
    assert found.startswith(str(path))
    assert message in found


def test_the_example_of_the_documentation_is_right(path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "write-a-scenario.md").read_text()
    lines = [line[7:] for line in page.splitlines() if line.startswith(" " * 7)]
    path.write_text(
        "\n".join(line for line in lines if ": " in line or line.endswith(":"))
    )  # without those of the trace
    found = load(path)
    assert (found.server_count, len(found.classes), len(found.disturbances)) == (8, 2, 2)


def test_all_that_is_wrong_is_named_at_once(path: Path) -> None:
    found = refusal(path, GOOD.replace("count: 2", "count: 0").replace("cores: 8", "cores: -1"))
    assert [line.split(":")[1] for line in found.splitlines()] == ["3", "4"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("duration: 86400\nservers: [{count: 1024, cores: 1024}]\n", "arrivals.load: makes 724,"),
        ("duration: 86400\ninterval: 0.02\nbalancers: {count: 64}\n", "interval: makes 829,440,000,"),
        (
            "duration: 86400\nservers: [{count: 1024, cores: 8, quota: {cpus: 1, period: 0.001}}]\n",
            "servers[0].quota.period",
        ),
        (
            "duration: 86400\ndisturbances: [{failure: {at: 0, every: 0.1, lasting: 1}}]\n",
            "disturbances[0].failure.every",
        ),
        ("classes: [{work: {mean: 0.000001}}]\n", "arrivals.load: makes 2,560,000,000 requests"),
    ],
)
def test_a_scenario_that_would_never_end_is_refused(path: Path, fields: str, message: str) -> None:
    text = fields + GOOD
    if "servers" in fields:
        text = text.replace("servers:\n  - {count: 2, cores: 4}\n  - {cores: 8}\n", "")
    assert message.split(",")[0] in refusal(path, text)


@pytest.mark.parametrize(
    "arrivals",
    [
        "{load: 0.1, modulated: {factors: [1, 2], every: 0.1}}",
        "{load: 0.1, mmpp: {factors: [1, 2], dwell: [0.1, 9]}}",
        "{load: 0.1, diurnal: {day: 1}}",
        "{load: 0.1, modulated: {factors: [0.001, 1e-300], every: 10}}",
        "{rate: 10000, ramp: {first: 0, last: 0.001, begin: 86399.999}}",
    ],
)
def test_rates_that_change_too_often_or_too_much_are_refused(path: Path, arrivals: str) -> None:
    text = GOOD.replace("arrivals:\n  load: 0.8", f"arrivals: {arrivals}")
    path.write_text(f"duration: 86400\n{text}")
    try:
        load(path)
    except ScenarioError as error:
        assert "at most" in str(error)


def test_files_that_are_none_are_refused_at_once(tmp_path: Path) -> None:
    for name, message in (("absent", "No such file"), ("folder", "Is a directory"), ("fifo", "is not a regular file")):
        path = tmp_path / name
        if name == "folder":
            path.mkdir()
        if name == "fifo":
            os.mkfifo(path)
        with pytest.raises(ScenarioError, match=message):
            load(path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="is not UTF-8"):
        load(tmp_path / "binary")
    with pytest.raises(ScenarioError, match="has more than 1048576 bytes"):
        load(Path("/dev/zero"))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return all places of a document whose value can be replaced: a map or list, and a key or index of it."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(raw=raw_scenarios(), data=st.data())
def test_any_value_in_any_place_is_read_or_refused(raw: Any, data: st.DataObject, tmp_path_factory: Any) -> None:
    raw = json.loads(json.dumps(raw))  # examples share parts
    container, key = data.draw(st.sampled_from(places(raw)))
    container[key] = data.draw(ANYTHING)
    path = tmp_path_factory.mktemp("scenario") / "any.yaml"
    path.write_text(yaml.safe_dump(raw))
    try:
        load(path)
    except ScenarioError as error:
        assert str(error).startswith(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{n}: &{n} [{', '.join(['*' + p] * 10)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)),
        "x: " + "[" * 10_000,
        "name: " + "x" * 1_000_000,
        "servers: [" + "{cores: 0}, " * 50_000 + "]",
    ],
    ids=["aliases", "depth", "a long value", "many errors"],
)
def test_a_hostile_file_gets_a_short_answer(path: Path, text: str) -> None:
    assert len(refusal(path, text)) < 10_000
