"""The numbers on the page of limits are those that the models, the core and the readers of files have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from penstock_agent import building, desired, http
from penstock_api import documents
from penstock_api.dataplane import DataPlane
from penstock_api.rlpolicy import RLPolicy
from penstock_api.vip import LoadBalancerVIP
from penstock_cli.roles import FLOW_TABLE_SIZE
from penstock_embedded import sizing
from penstock_operator.plan import pods

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/limits.md"
CORE = "vpp-plugin/core/include/lbrl"
HEADERS = (f"{CORE}/lbrl.h", f"{CORE}/features.h", "vpp-plugin/embedded/io/lbio.h")
DAY_SECONDS = 86_400


def schema(kind: type[Any], *path: str) -> Mapping[str, Any]:
    """Return the schema of a field of an object, by its name as users write it."""
    whole = kind.model_json_schema(by_alias=True)
    found: Mapping[str, Any] = whole
    for name in path:
        found = resolved(whole, found["properties"][name])
    return found


def resolved(whole: Mapping[str, Any], found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference; of a choice with null take the other."""
    if "$ref" in found:
        return resolved(whole, whole["$defs"][found["$ref"].rpartition("/")[2]])
    for other in found.get("anyOf", ()):
        if other.get("type") != "null":
            return resolved(whole, {**found, "anyOf": (), **other})
    return found


def constant(name: str) -> int:
    """Return a number that a header of C defines."""
    text = "".join((ROOT / header).read_text() for header in HEADERS)
    (value,) = re.findall(rf"^#define {name} +(\d+)u?\b", text, re.MULTILINE)
    return int(value)


@pytest.fixture(scope="module")
def limits() -> dict[str, str]:
    """Limits by what they limit."""
    rows = (line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| "))
    return {cells[0].strip(): cells[1].strip() for cells in rows if len(cells) == 3}


def test_numbers_are_true(limits: Mapping[str, str]) -> None:
    flows = schema(DataPlane, "spec", "flowTableSize")
    ports = schema(DataPlane, "spec", "natSource")["properties"]
    range_size = ports["portLast"]["default"] - ports["portFirst"]["default"] + 1
    longest = schema(LoadBalancerVIP, "spec", "timeouts", "tcpEstablishedSeconds")["maximum"]
    table = max(schema(RLPolicy, "spec", "tableSize")["enum"])
    true = {
        "flows of a node": (
            f"{flows['minimum']:,} to {flows['maximum']:,}, memory reserved at start; by default {sizing.SMALLEST:,} "
            f"to {sizing.LARGEST:,} by the node's memory"
        ),
        "connections at a time to one backend, per NAT source address": (
            f"{range_size:,} by default, as many as ports of the range"
        ),
        "core VIPs of a node: one per port and address family": f"{desired.MAX_VIPS:,}",
        "backends of a VIP port": f"{building.MAX_BACKENDS:,}, draining ones included",
        "addresses of a VIP": f"{schema(LoadBalancerVIP, 'spec', 'addresses')['maxItems']}",
        "ports of a VIP": f"{schema(LoadBalancerVIP, 'spec', 'ports')['maxItems']}",
        "servers written into a VIP": f"{schema(LoadBalancerVIP, 'spec', 'backends', 'endpoints')['maxItems']}",
        "Maglev table": f"{table:,} entries",
        "workers of VPP": f"{constant('LBIO_QUEUES_MAX')}",
        "samples kept per backend and channel": f"{constant('LBRL_RESERVOIR_WORDS')}",
        "TCP flow without a packet": f"{longest // DAY_SECONDS} days at most",
        "file of objects": (
            f"{documents.LARGEST_BYTES >> 20} MiB, {documents.MOST_NODES:,} values with aliases written out, "
            f"{documents.LARGEST_DEPTH} levels deep"
        ),
        "answers of an agent at a time": (
            f"{http.MOST_ANSWERS}, of up to {http.MOST_CONNECTIONS} connections; `/healthz` is always answered"
        ),
    }
    assert {what: limits.get(what) for what in true} == true


def test_the_core_has_the_limits_of_the_models() -> None:
    assert constant("LBRL_BACKENDS_MAX") == building.MAX_BACKENDS
    assert constant("LBRL_ADDRESSES_MAX") == schema(LoadBalancerVIP, "spec", "addresses")["maxItems"]
    assert constant("LBRL_FLOWS_MAX") == schema(DataPlane, "spec", "flowTableSize")["maximum"]
    assert constant("LBRL_FLOWS_MAX") == sizing.FLOWS_MAX
    assert schema(DataPlane, "spec", "flowTableSize")["minimum"] == sizing.FLOWS_MIN
    assert schema(DataPlane, "spec", "vpp", "workers")["maximum"] == constant("LBIO_QUEUES_MAX")


def test_one_number_says_how_much_memory_a_flow_takes() -> None:
    assert constant("LBRL_FLOW_BYTES") == sizing.BYTES_PER_FLOW == pods.BYTES_PER_FLOW
    assert sizing.LARGEST == pods.LARGEST_AUTOMATIC_TABLE
    text = f"{sizing.SMALLEST:,} to {sizing.LARGEST:,}"
    assert text in FLOW_TABLE_SIZE
    assert text in (ROOT / "docs/reference/kinds.md").read_text()
