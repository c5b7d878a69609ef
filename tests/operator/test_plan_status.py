"""Tables of a VIP's status: what people and `kubectl wait` see."""

from __future__ import annotations

from typing import Any

import pytest
from penstock_api import Reason, VipReport, VipStatus
from penstock_operator.plan.acceptance import Verdict
from penstock_operator.plan.allocation import Problem
from penstock_operator.plan.status import (
    NodeView,
    address_change,
    invalid_status,
    new_announcers,
    node_views,
    paused_status,
    policy_status,
    read_status,
    vip_status,
)

from tests.support.plan_builders import NOW, data_plane, data_plane_node, node, policy, vip

MINE = vip(held=["203.0.113.10"])


def report(**changes: Any) -> VipReport:
    values = {"namespace": "shop", "name": "web", "uid": "u", "generation": 1, "ready": 3, "total": 4, "policy": "lsq"}
    return VipReport.model_validate(values | changes)


def verdict(problem: Problem | None = None, warnings: tuple[Problem, ...] = (), *, starting: bool = False) -> Verdict:
    ready = {"status": "False", "reason": "Progressing" if starting else "NodesNotReady"}
    conditions = [{"type": "Ready", "lastTransitionTime": "2026-01-01T00:00:00Z", **ready}]
    return Verdict(data_plane(status={"conditions": conditions}), MINE.status.addresses, problem, warnings)


def port(number: int = 80, **values: Any) -> dict[str, Any]:
    return {"port": number, "protocol": "TCP", "family": "IPv4", "total": 2, "ready": 2, **values}


def conditions(status: VipStatus) -> dict[str, tuple[str, str]]:
    return {found.type: (str(found.status), found.reason) for found in status.conditions}


@pytest.mark.parametrize(
    ("nodes", "programmed", "ready", "backends"),
    [
        pytest.param([], ("False", "NoReadyNodes"), ("False", "NoReadyNodes"), "", id="no nodes"),
        pytest.param(
            [NodeView("a", False, report())],
            ("False", "NoReadyNodes"),
            ("False", "NoReadyNodes"),
            "",
            id="a node that is NotReady does not count",
        ),
        pytest.param(
            [NodeView("a", True, None)], ("False", "Progressing"), ("False", "Progressing"), "", id="nothing heard yet"
        ),
        pytest.param(
            [NodeView("a", True, report()), NodeView("b", True, report(ready=2))],
            ("True", "Programmed"),
            ("True", "Ready"),
            "2/4",
            id="all nodes; the worst view of backends",
        ),
        pytest.param(
            [NodeView("a", True, report()), NodeView("b", True, report(generation=0))],
            ("False", "Progressing"),
            ("True", "Ready"),
            "3/4",
            id="a node that is behind still serves",
        ),
        pytest.param(
            [NodeView("a", True, report()), NodeView("b", True, report(error="no TUN"))],
            ("False", "NodesFailing"),
            ("False", "NodesFailing"),
            "3/4",
            id="a node that fails",
        ),
        pytest.param(
            [NodeView("a", True, report(ready=0, total=0))],
            ("True", "Programmed"),
            ("False", "NoBackends"),
            "0/0",
            id="no backends",
        ),
        pytest.param(
            [NodeView("a", True, report(ready=0))],
            ("True", "Programmed"),
            ("False", "NoBackends"),
            "0/4",
            id="none healthy",
        ),
        pytest.param(
            [NodeView("a", True, report(ready=0, warning="fail open"))],
            ("True", "Programmed"),
            ("False", "FailOpen"),
            "0/4",
            id="fail open",
        ),
        pytest.param(
            [NodeView("a", True, report(ready=0)), NodeView("b", True, report())],
            ("True", "Programmed"),
            ("True", "Ready"),
            "0/4",
            id="healthy as one node sees it",
        ),
    ],
)
def test_nodes_make_a_vip_ready(
    nodes: list[NodeView], programmed: tuple[str, str], ready: tuple[str, str], backends: str
) -> None:
    status = vip_status(MINE, verdict(), nodes, NOW)
    found = conditions(status)
    assert found["Accepted"] == ("True", "Accepted")
    assert found["Programmed"] == programmed
    assert found["Ready"] == ready
    assert ("Reconciling" in found) == (programmed[0] == "False")
    assert "Stalled" not in found
    assert status.summary.backends == backends
    again = vip_status(MINE.model_copy(update={"status": status}), verdict(), nodes, NOW)
    assert again == status  # nothing to write the second time


def test_a_first_start_is_no_fault_of_a_vip() -> None:
    status = vip_status(MINE, verdict(starting=True), [], NOW)
    assert conditions(status)["Ready"] == conditions(status)["Programmed"] == ("False", "Progressing")


def test_a_vip_without_data_plane_names_the_cause() -> None:
    lost = Verdict(None, MINE.status.addresses, Problem(Reason.DATAPLANE_NOT_FOUND, "there is none"))
    status = vip_status(MINE, lost, [], NOW)
    assert conditions(status)["Programmed"] == ("False", "DataPlaneNotFound")
    assert "?" not in "".join(found.message for found in status.conditions)


PORT_FAULT: dict[str, Any] = {
    "reason": "PortNotFound",
    "message": "spec.ports[0].targetPort: Service web has no port htpp (it has: http)",
}


@pytest.mark.parametrize(
    ("reports", "ready", "programmed", "stalled", "message"),
    [
        pytest.param(
            [report(ports=[port()])], ("True", "Ready"), ("True", "Programmed"), "", "traffic is served", id="all ports"
        ),
        pytest.param(
            [report(ports=[port(), port(443, ready=0, total=0, **PORT_FAULT)])],
            ("False", "PortNotFound"),
            ("True", "Programmed"),
            "",
            "port 443/TCP: spec.ports[0].targetPort: Service web has no port htpp",
            id="one port without backends",
        ),
        pytest.param(
            [report(ports=[port(ready=0, total=0, reason="AllWeightsZero", message="all endpoints have weight 0")])],
            ("False", "AllWeightsZero"),
            ("True", "Programmed"),
            "",
            "all endpoints have weight 0",
            id="all weights 0",
        ),
        pytest.param(
            [report(ports=[port(ready=0, reason="AllUnhealthy", message="all fail")])],
            ("False", "FailOpen"),
            ("True", "Programmed"),
            "",
            "all fail",
            id="all unhealthy",
        ),
        pytest.param(
            [report(ports=[port(ready=0, total=0)])],
            ("False", "NoBackends"),
            ("True", "Programmed"),
            "",
            "port 80/TCP: it has no backends",
            id="none, without a reason",
        ),
        pytest.param(
            [report(ports=[port(kept=True, **PORT_FAULT)])],
            ("True", "Ready"),
            ("False", "PortNotFound"),
            "PortNotFound",
            "it has: http",
            id="the last good backends are kept",
        ),
        pytest.param(
            [
                report(
                    error="x",
                    findings=[{"reason": "PortNotFound", "field": "spec.ports[0].targetPort", "message": "no htpp"}],
                    ready=0,
                    total=0,
                )
            ],
            ("False", "PortNotFound"),
            ("False", "PortNotFound"),
            "PortNotFound",
            "spec.ports[0].targetPort: no htpp",
            id="a fault of the user does not blame nodes",
        ),
        pytest.param(
            [report(error="no room", findings=[{"reason": "Refused", "message": "no room"}])],
            ("False", "NodesFailing"),
            ("False", "NodesFailing"),
            "",
            "node a: no room",
            id="a fault of the node does",
        ),
        pytest.param(
            [
                report(ports=[port(ready=0, reason="AllUnhealthy", message="bad")], announces=["203.0.113.10"]),
                report(ports=[port()]),
            ],
            ("False", "FailOpen"),
            ("True", "Programmed"),
            "",
            "bad",
            id="clients meet the node that announces",
        ),
        pytest.param(
            [
                report(ports=[port(ready=0, reason="AllUnhealthy", message="bad")]),
                report(ports=[port()], announces=["203.0.113.10"]),
            ],
            ("True", "Ready"),
            ("True", "Programmed"),
            "",
            "traffic is served",
            id="and no other",
        ),
    ],
)
def test_ready_is_what_a_client_would_find(
    reports: list[VipReport], ready: tuple[str, str], programmed: tuple[str, str], stalled: str, message: str
) -> None:
    nodes = [NodeView(name, True, each) for name, each in zip("abc", reports, strict=False)]
    status = vip_status(MINE, verdict(), nodes, NOW)
    found = conditions(status)
    assert (found["Ready"], found["Programmed"]) == (ready, programmed)
    assert found.get("Stalled", ("", ""))[1] == stalled
    assert message in next(each.message for each in status.conditions if each.type == "Ready")


def test_a_vip_shows_who_announces_it() -> None:
    nodes = [
        NodeView("a", True, report(announces=["203.0.113.10"])),
        NodeView("b", True, report()),
        NodeView("c", False, report(announces=["203.0.113.10"])),  # nobody knows what it does
        NodeView("d", True, report(announces=["203.0.113.99"])),  # no longer an address of the VIP
    ]
    status = vip_status(MINE, verdict(), nodes, NOW)
    assert [(str(each.address), each.node_name) for each in status.announcements] == [("203.0.113.10", "a")]
    assert new_announcers(MINE.status, status) == "203.0.113.10 is announced by node a"
    assert new_announcers(status, status) == ""
    assert new_announcers(status, MINE.status) == ""


def test_a_change_of_addresses_is_worth_an_event() -> None:
    other = vip(held=["203.0.113.11"]).status
    assert address_change(MINE.status, other) == "203.0.113.10 is given up, 203.0.113.11 is held instead"
    assert address_change(MINE.status, VipStatus()) == "203.0.113.10 is given up, no address is held instead"
    assert address_change(VipStatus(), MINE.status) == ""


def test_a_refused_vip_is_stalled_and_keeps_what_it_holds() -> None:
    status = vip_status(MINE, verdict(Problem(Reason.ADDRESS_CONFLICT, "taken")), [NodeView("a", True, report())], NOW)
    found = conditions(status)
    assert found["Accepted"] == found["Ready"] == ("False", "AddressConflict")
    assert found["Stalled"] == ("True", "AddressConflict")
    assert status.addresses == MINE.status.addresses


def test_a_warning_is_shown_with_acceptance() -> None:
    status = vip_status(MINE, verdict(warnings=(Problem(Reason.POLICY_NOT_FOUND, "lsq is used"),)), [], NOW)
    assert conditions(status)["Accepted"] == ("True", "PolicyNotFound")


def test_many_nodes_are_not_all_listed() -> None:
    nodes = [NodeView(f"n-{number}", True, None) for number in range(9)]
    status = vip_status(MINE, verdict(), nodes, NOW)
    messages = {found.type: found.message for found in status.conditions}
    assert "n-0, n-1, n-2 and 6 more" in messages["Programmed"]
    assert status.nodes is not None
    assert (status.nodes.selected, status.nodes.ready, status.nodes.programmed) == (9, 9, 0)


def test_long_lists_of_ports_are_cut() -> None:
    ports = [{"port": 10000 + number} for number in range(32)]
    status = vip_status(vip(ports=ports), verdict(), [], NOW)
    assert len(status.summary.ports) == 256
    assert status.summary.ports.endswith("...")


def test_pausing_before_acceptance_shows() -> None:
    paused = paused_status(vip(generation=3), [], NOW)
    found = conditions(paused)
    assert found["Ready"] == ("False", "Paused")
    assert found["Reconciling"] == ("True", "Paused")
    assert paused.observed_generation == -1


def test_health_still_shows_while_paused() -> None:
    ready = vip_status(MINE, verdict(), [NodeView("a", True, report())], NOW)
    mine = MINE.model_copy(update={"status": ready})
    paused = paused_status(mine, [NodeView("a", True, report(ready=1))], NOW)
    assert conditions(paused)["Ready"] == ("True", "Paused")
    assert paused.summary.backends == "1/4"


def test_an_unreadable_vip_keeps_its_status() -> None:
    before = read_status({"observedGeneration": 1, "addresses": ["203.0.113.10"], "conditions": []})
    status = invalid_status(before, 2, "spec.forwarding: must be one of NAT", NOW)
    assert conditions(status)["Accepted"] == ("False", "InvalidSpec")
    assert [str(address) for address in status.addresses] == ["203.0.113.10"]
    assert read_status({"addresses": 7}) == VipStatus()


@pytest.mark.parametrize(("users", "message"), [(0, "no VIP uses the policy yet"), (2, "in use")])
def test_policies_say_who_uses_them(users: int, message: str) -> None:
    status = policy_status(policy(), users, NOW)
    assert status.summary.vips == str(users)
    assert {found.message for found in status.conditions} == {message}


def test_a_node_counts_only_if_kubernetes_and_agent_say_so() -> None:
    known = {
        "edge.a": data_plane_node("a"),
        "edge.b": data_plane_node("b"),
        "edge.c": data_plane_node("c", ready=False),
    }
    facts = {"a": node("a"), "b": node("b", ready=False), "c": node("c")}
    views = node_views(known, facts, {"a": report()})
    assert [(view.name, view.ready, view.report is not None) for view in views] == [
        ("a", True, True),
        ("b", False, False),
        ("c", False, False),
    ]
