"""`penstock evaluate`: policies compared on scenarios, in the simulator."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.failure import fail, reported

if TYPE_CHECKING:
    from penstock_rl.evaluation.cases import Case
    from penstock_rl.evaluation.runner import Progress

OUT = Path("penstock-evaluation")


def evaluate(
    scenarios: Annotated[
        list[str],
        typer.Option(
            "--scenarios",
            "-s",
            help="Scenario file, directory of such files, `named` (those that come with Penstock), `unseen` (96 random "
            "ones, of which no model was trained or chosen on any), `choosing` (96 others, to choose models by), N of "
            "these (`unseen:N`); repeatable.",
            show_default=False,
        ),
    ],
    policies: Annotated[
        str | None,
        typer.Option("--policies", "-p", help="Names or models (.npz), separated by commas; default: all."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each scenario and policy, with seeds from 1.")] = 8,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory for results, tables and plots.")] = OUT,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that run at once; default: one for each CPU.", show_default=False),
    ] = None,
) -> None:
    """Compare policies on scenarios: every policy gets the same arrivals and works.

    Writes results.json, tables (README.md) and plots (SVG) to the directory. An evaluation that was interrupted goes on
    from what it had done when it is started again. LSQ and the oracle are run with any choice of policies: the gap that
    a policy closes lies between them.
    """
    with laboratory():
        from penstock_rl.evaluation import runner
        from penstock_rl.evaluation.policies import PolicyNameError, default_names, select
        from penstock_rl.evaluation.report import report
        from penstock_rl.scenarios import ScenarioError

    with reported(PolicyNameError, ScenarioError, runner.JournalError, runner.RunError, OSError):
        chosen = select(policies.split(",") if policies else default_names())
        cases = _cases(scenarios)
        with _progress() as progress:
            found = runner.evaluate(
                cases,
                chosen,
                range(1, seeds + 1),
                out=out,
                processes=processes or os.cpu_count() or 1,
                command=_command(scenarios, policies, seeds),
                progress=progress,
            )
        text = report(found, out)
    typer.echo(text)
    typer.echo(f"Tables and plots are in {out}.")


@contextmanager
def laboratory() -> Iterator[None]:
    """Fail with the fix where the extra of the laboratory is not installed."""
    try:
        yield
    except ImportError as error:
        fail(f"{error.name} is not installed: pip install 'penstock[lab]'")


def _cases(sources: Sequence[str]) -> list[Case]:
    """Return the scenarios that are meant, each once."""
    from penstock_rl.evaluation.cases import read

    found: dict[str, Case] = {}
    for source in sources:
        for case in read(source):
            if case.name in found:
                fail(f"--scenarios {source}: scenario {case.name} is there twice; rename one")
            found[case.name] = case
    return list(found.values())


@contextmanager
def _progress() -> Iterator[Progress]:
    """Show a bar on a terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("running", total=None)
        yield lambda done, total, block: bar.update(
            task, completed=done, total=total, description=f"{block.case.name}, {block.policy.name}"
        )


def _command(scenarios: Sequence[str], policies: str | None, seeds: int) -> str:
    """Return what makes the same results: neither the directory nor the number of processes changes them."""
    sources = [part for source in scenarios for part in ("--scenarios", source)]
    chosen = ["--policies", policies] if policies else []
    return shlex.join(["penstock", "evaluate", *sources, *chosen, "--seeds", str(seeds)])
