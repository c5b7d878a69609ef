"""`make lab`: scenarios in the simulator and on real servers behind the real data plane; 1 where they disagree.

Servers are processes with quotas of processor time, in namespaces of their own. Other programs get the processor time
that they leave. Where the client was late all the same, nothing is concluded, and the exit status is 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from penstock_rl.evaluation.policies import POLICIES
from penstock_rl.scenarios import ScenarioError, load
from rich.console import Console

from e2e.cluster.processes import exit_on_sigterm
from tools.lab.comparison import Comparison, compare, table
from tools.lab.errors import LabError
from tools.lab.laboratory import runs
from tools.lab.settings import SETTINGS, Setting

_POLICIES = sorted(name for name, evaluated in POLICIES.items() if runs(evaluated))


def main() -> int:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(prog="make lab", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"settings: {', '.join(SETTINGS)}; default: all")
    parser.add_argument("--scenario", type=Path, help="a scenario file instead; made to fit this machine")
    parser.add_argument(
        "--policy", default="lsq", choices=_POLICIES, metavar="NAME", help=f"for --scenario: {', '.join(_POLICIES)}"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    exit_on_sigterm()
    console = Console() if sys.stdout.isatty() else Console(width=160)
    try:
        found = [_compare(setting, options.seed, console) for setting in _settings(parser, options)]
    except (LabError, ScenarioError) as error:
        console.print(f"error: {error}", markup=False)
        return 1
    console.print(table(found))
    return conclude(found, console)


def conclude(found: Sequence[Comparison], console: Console) -> int:
    """Print what is wrong, and return the exit status."""
    for each in found:
        problem = f"nothing can be concluded: {each.disturbance}" if each.disturbance else each.disagreement
        if problem:
            console.print(f"{each.scenario}, {each.policy}: {problem}", markup=False)
    if any(each.disagreement and not each.disturbance for each in found):
        return 1
    return 2 if any(each.disturbance for each in found) else 0


def _settings(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Setting]:
    if options.scenario:
        return [Setting(load(options.scenario), options.policy)]
    for name in options.names:
        if name not in SETTINGS:
            parser.error(f"NAME: {name!r} is not known; use some of {', '.join(SETTINGS)}")
    return [SETTINGS[name]() for name in options.names or SETTINGS]


def _compare(setting: Setting, seed: int, console: Console) -> Comparison:
    name = f"{setting.scenario.name}, {setting.policy}"
    with console.status(name):
        return compare(setting.scenario, setting.policy, seed)


if __name__ == "__main__":
    sys.exit(main())
