"""Whether a VIP is accepted: what it refers to, and which DataPlane serves it."""

from __future__ import annotations

from typing import Any

import pytest
from penstock_operator.plan.acceptance import Neighbours, judge

from tests.support.plan_builders import data_plane, policy, vip, world


def test_vips_of_one_address_stay_with_one_data_plane() -> None:
    mine = vip(held=["203.0.113.10"], ports=[{"port": 443}], servedBy="gone")
    friend = vip("a", held=["203.0.113.10"], servedBy="edge", dataPlaneName="edge")
    planes = {"edge": data_plane(default=False), "core": data_plane("core")}
    verdict = judge(mine, Neighbours(planes), world(mine, friend))
    assert verdict.data_plane is None  # so nobody serves the address twice
    assert verdict.addresses == mine.status.addresses
    assert verdict.problem is not None
    assert "shared with VIP shop/a, which DataPlane edge serves" in verdict.problem.message
    assert judge(mine, Neighbours(planes), world(mine)).data_plane is planes["core"]


@pytest.mark.parametrize(
    ("spec", "neighbours", "reason", "message"),
    [
        ({"dataPlaneName": "core"}, {}, "DataPlaneNotFound", "does not exist (there is: edge)"),
        ({"dataPlaneName": "edge"}, {"deleting": True}, "DataPlaneNotFound", "is being deleted"),
        ({}, {"default": False}, "DataPlaneNotFound", "no DataPlane is annotated"),
        ({}, {"second": True}, "DataPlaneNotFound", "several DataPlanes are annotated"),
        ({}, {"service_exists": False}, "ServiceNotFound", "Service shop/web does not exist"),
        (
            {"backends": {"endpoints": [{"address": "198.51.100.1", "port": 80}]}},
            {},
            "EndpointNotAllowed",
            "spec.backends.endpoints[0]: 198.51.100.1 is outside",
        ),
        (
            {"backends": {"endpoints": [{"address": "203.0.113.12", "port": 80}]}},
            {"cidrs": ["203.0.113.0/24"]},
            "EndpointNotAllowed",
            "is an address of a VIP",
        ),
    ],
)
def test_what_a_vip_refers_to_is_checked(
    spec: dict[str, Any], neighbours: dict[str, Any], reason: str, message: str
) -> None:
    mine = vip(**spec)
    edge = data_plane(
        default=neighbours.get("default", True),
        deleting=neighbours.get("deleting", False),
        staticEndpointCIDRs=neighbours.get("cidrs", []),
    )
    planes = {"edge": edge} | ({"second": data_plane("second")} if neighbours.get("second") else {})
    verdict = judge(
        mine,
        Neighbours(planes, neighbours.get("service_exists", True)),
        world(mine, vip("other", held=["203.0.113.12"])),
    )
    assert verdict.problem is not None
    assert verdict.problem.reason == reason
    assert message in verdict.problem.message


def test_a_missing_policy_is_only_a_warning() -> None:
    mine = vip(policyName="clever")
    verdict = judge(mine, Neighbours({"edge": data_plane()}), world(mine))
    assert verdict.accepted
    assert "lsq is used" in verdict.warnings[0].message
    assert "there is: none" in verdict.warnings[0].message
    others = Neighbours({"edge": data_plane()}, policy_names=("slow", "fast"))
    assert "there is: fast, slow" in judge(mine, others, world(mine)).warnings[0].message
    verdict = judge(mine, Neighbours({"edge": data_plane()}, policy=policy("clever")), world(mine))
    assert verdict.warnings == ()


def test_moving_the_default_moves_no_vip_in_service() -> None:
    mine = vip(held=["203.0.113.10"], servedBy="edge")
    planes = {"edge": data_plane(default=False), "core": data_plane("core")}
    verdict = judge(mine, Neighbours(planes), world(mine))
    assert verdict.data_plane is planes["edge"]
