"""`make bench-learning`: evaluates all policies, writes docs/results/.

With `--short` it runs a part of it, with fewer seeds, and fails where that disagrees with docs/results/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from penstock_rl.evaluation import cases, policies, results, runner
from penstock_rl.evaluation.drift import drifts
from penstock_rl.evaluation.report import RESULTS, report
from penstock_rl.evaluation.runner import Block

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "docs/results"
WORK = ROOT / "build/bench-learning"
SEEDS = range(1, 9)

SETS = {
    "named": "Named scenarios",
    "unseen": "Unseen scenarios",
}
"""Directories of docs/results with the headings of their pages; also what `--scenarios` calls them."""

SHORT_SCENARIOS = ("het8", "het2", "spd", "ka", "pers", "churn", "control")
SHORT_POLICIES = ("lsq", "sed", "little", "lsq+active", "inverse-duration+active", "little+active", "bayes+active")
SHORT_SEEDS = range(1, 4)


def main() -> int:
    """Run the evaluation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", help=f"of {', '.join(SETS)}; default: all")
    parser.add_argument("--short", action="store_true", help="compare a part with docs/results, write nothing there")
    parser.add_argument("--policies", help="names, separated by commas; default: all")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if unknown := [name for name in options.sets if name not in SETS]:
        parser.error(f"no set is called {unknown[0]}; there are {', '.join(SETS)}")
    if options.short:
        return _short(options.processes)
    for name in options.sets or SETS:
        _publish(name, options.policies, options.processes)
    return 0


def _publish(name: str, chosen: str | None, processes: int) -> None:
    found = runner.evaluate(
        cases.read(name),
        policies.select(chosen.split(",") if chosen else policies.default_names()),
        SEEDS,
        out=WORK / name,
        processes=processes,
        command=f"penstock evaluate --scenarios {name}{f' --policies {chosen}' if chosen else ''} --seeds {len(SEEDS)}",
        progress=_print,
    )
    report(found, PUBLISHED / name, SETS[name])
    print(f"wrote {PUBLISHED / name}")


def _short(processes: int) -> int:
    published = results.load(PUBLISHED / "named" / RESULTS)
    chosen = [case for case in cases.read("named") if case.name in SHORT_SCENARIOS]
    shutil.rmtree(WORK / "short", ignore_errors=True)  # runs of an older version cannot be gone on with
    found = runner.evaluate(
        chosen,
        policies.select(SHORT_POLICIES),
        SHORT_SEEDS,
        out=WORK / "short",
        processes=processes,
        progress=_print,
    )
    return _compare(found, published)


def _compare(found: results.Results, published: results.Results) -> int:
    missing = set(found.scenarios) - set(published.scenarios)
    problems: Sequence[object] = [
        *(f"{name}: is not in docs/results/named; run make bench-learning" for name in sorted(missing)),
        *drifts(found, published),
    ]
    for problem in problems:
        print(problem, file=sys.stderr)
    compared = len(_means(found) & _means(published))
    print(f"bench-learning: {compared} means compared with docs/results, {len(problems)} differ")
    return 1 if problems else 0


def _means(found: results.Results) -> set[tuple[str, str]]:
    return {(run.scenario, run.policy) for run in found.runs}


def _print(done: int, total: int, block: Block) -> None:
    if done == total or done % 20 == 0:
        print(f"{done}/{total}  {block.case.name}, {block.policy.name}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
