"""Weights that an agent writes, in VPP, whatever scheduler they are for."""

from __future__ import annotations

from functools import partial

import numpy as np
import penstock_core
import pytest

from tests.support.clients import get
from tests.support.dataplane import VIP_IPV4, vip
from tests.support.lab import Lab, eventually
from tests.support.vpp import RunningVpp, VppControl, running_control

pytest.importorskip("vpp_papi", reason="no vpp_papi: install it with pip")

# The first test builds the plugin, and that is not its own time.
pytestmark = [pytest.mark.vpp, pytest.mark.netns]


@pytest.mark.parametrize("table_size", [1021, 65537])
def test_weights_of_an_agent_come_into_force_with_maglev(lab: Lab, balancer: RunningVpp, table_size: int) -> None:
    wanted = vip(lab, scheduler={"type": "maglev", "table_size": table_size})
    with running_control(balancer) as control:
        control.apply(wanted)
        (status,) = control.dump().vips
        frame = eventually(lambda: _frame(balancer, status.frames))
        writer = penstock_core.ActionsWriter(str(balancer.shm / status.actions.lstrip("/")), len(frame.generation))
        for favourite in lab.servers:
            weights = np.zeros(len(frame.generation), dtype=np.float32)
            for each in status.backends:
                weights[each.slot] = 1.0 if each.id == favourite.name else 0.0
            writer.write(weights, frame.generation, penstock_core.boottime_us())
            wished = {each.id: float(each.id == favourite.name) for each in status.backends}
            eventually(partial(has_weights, control, wished))
            assert {get(lab, VIP_IPV4) for _ in range(6)} == {favourite.name.encode()}


def test_bases_of_an_agent_come_into_force_with_sed(lab: Lab, balancer: RunningVpp) -> None:
    with running_control(balancer) as control:
        control.apply(vip(lab, scheduler={"type": "sed"}))
        (status,) = control.dump().vips
        frame = eventually(lambda: _frame(balancer, status.frames))
        writer = penstock_core.ActionsWriter(str(balancer.shm / status.actions.lstrip("/")), len(frame.generation))
        for favourite in lab.servers:
            bases = np.full(len(frame.generation), 1000, dtype=np.float32)
            for each in status.backends:
                bases[each.slot] = 0.5 if each.id == favourite.name else 1000
            writer.write(np.ones_like(bases), frame.generation, penstock_core.boottime_us(), bases)
            wished = {each.id: 0.5 if each.id == favourite.name else 1000 for each in status.backends}
            eventually(partial(has_bases, control, wished))
            assert {get(lab, VIP_IPV4) for _ in range(6)} == {favourite.name.encode()}
        assert "base .500" in balancer.ctl("show lb rl agent")


def has_bases(control: VppControl, wanted: dict[str, float]) -> bool:
    return {each.id: each.base for each in control.dump().vips[0].backends} == wanted


def has_weights(control: VppControl, wanted: dict[str, float]) -> bool:
    return {each.id: each.weight for each in control.dump().vips[0].backends} == wanted


def _frame(balancer: RunningVpp, name: str) -> penstock_core.Frame | None:
    """The first frame, once there is one."""
    try:
        return penstock_core.FrameReader(str(balancer.shm / name.lstrip("/"))).read()
    except (penstock_core.ShmError, FileNotFoundError):
        return None
