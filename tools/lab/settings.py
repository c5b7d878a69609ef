"""The settings in which simulator and laboratory are compared: all at feature level `full`, with periods of 100 ms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from penstock_rl.scenarios import Scenario, load

_SCENARIOS = Path(__file__).parent / "scenarios"


class Setting(NamedTuple):
    """A scenario and a policy."""

    scenario: Scenario
    policy: str


def _setting(name: str, policy: str) -> Setting:
    return Setting(load(_SCENARIOS / f"{name}.yaml"), policy)


SETTINGS: Mapping[str, Callable[[], Setting]] = {
    "equal": partial(_setting, "equal", "lsq"),  # rho .8
    "half": partial(_setting, "half", "p2c"),  # rho .5
    "unequal": partial(_setting, "unequal", "sed"),  # limits 1:2:4, told
    "moderate": partial(_setting, "moderate", "little"),  # limits 1:2:4, not told
    "kept": partial(_setting, "kept", "lsq+active"),  # connections of several requests, some idle
    "two": partial(_setting, "two", "lsq"),  # two data planes
}
