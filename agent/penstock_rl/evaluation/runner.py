"""Runs scenarios under policies in several processes, and keeps what is done.

Each block of runs (one scenario, one policy, some seeds) is appended to a journal when it ends; a killed evaluation
goes on from there. All policies get the same environments, so their runs are paired by seed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from penstock_embedded import files

from penstock_rl import simulation
from penstock_rl.evaluation import results
from penstock_rl.evaluation.cases import Case
from penstock_rl.evaluation.policies import Evaluated
from penstock_rl.evaluation.results import Results, Run
from penstock_rl.scenarios import capacities

JOURNAL = "runs.jsonl"
_SHOWN_LATER = {"tables.py", "plots.py"}  # modules that only present what was run
REQUESTS_AT_ONCE = 1_000_000  # in one block: bounds the memory of a process


class JournalError(ValueError):
    """A journal that belongs to other runs."""


class RunError(RuntimeError):
    """A block that could not be run."""


@dataclass(frozen=True, slots=True)
class Block:
    """Runs that one process makes as one batch."""

    case: Case
    policy: Evaluated
    seeds: tuple[int, ...]


Progress = Callable[[int, int, Block], None]  # blocks done, blocks in all, the one that ended
Key = tuple[str, str, int]


def run_block(block: Block) -> list[Run]:
    """Run a block."""
    scenario, policy = block.case.scenario, block.policy
    told = capacities(scenario)
    outcomes = simulation.run(
        [policy.prepared(block.case.environment(seed), told) for seed in block.seeds],
        policy.policy,
        until=scenario.duration,
        setting=policy.setting(scenario.features.value.lower(), scenario.forwarding.value.lower()),
        interval=scenario.interval,
    )
    return [
        results.summarise(scenario.name, policy.name, seed, outcome.duration, outcome.utilisation)
        for seed, outcome in zip(block.seeds, outcomes, strict=True)
    ]


def evaluate(
    cases: Sequence[Case],
    policies: Sequence[Evaluated],
    seeds: Sequence[int],
    *,
    out: Path,
    processes: int = 1,
    command: str = "",
    progress: Progress | None = None,
) -> Results:
    """Run what the journal in `out` does not have yet, and return all runs in the order of the arguments.

    Raises JournalError where the journal belongs to other runs, RunError where a block fails; the journal keeps what
    was done before.
    """
    digests = {case.name: case.digest for case in cases}
    out.mkdir(parents=True, exist_ok=True)
    with _journal(out / JOURNAL, digests) as journal:
        done = {run.key: run for run in journal.runs}
        blocks = list(_missing(cases, policies, seeds, done))
        for index, (block, runs) in enumerate(_run(blocks, processes), start=1):
            journal.append(runs)
            done.update({run.key: run for run in runs})
            if progress is not None:
                progress(index, len(blocks), block)
    wanted = [(case.name, policy.name, seed) for case in cases for policy in policies for seed in seeds]
    return Results(tuple(done[key] for key in wanted), command, results.versions(), digests)


def _missing(
    cases: Sequence[Case], policies: Sequence[Evaluated], seeds: Sequence[int], done: Mapping[Key, Run]
) -> Iterator[Block]:
    for case in cases:
        at_once = max(int(REQUESTS_AT_ONCE / max(case.requests, 1.0)), 1)
        for policy in policies:
            missing = [seed for seed in seeds if (case.name, policy.name, seed) not in done]
            for first in range(0, len(missing), at_once):
                yield Block(case, policy, tuple(missing[first : first + at_once]))


def _run(blocks: Sequence[Block], processes: int) -> Iterator[tuple[Block, list[Run]]]:
    if processes <= 1:
        for block in blocks:
            with _named(block):
                runs = run_block(block)
            yield block, runs
        return
    # Not forked: a copy of a process with threads may hold a lock for ever.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures: dict[Future[list[Run]], Block] = {pool.submit(run_block, block): block for block in blocks}
        try:
            for future in as_completed(futures):
                with _named(futures[future]):
                    runs = future.result()
                yield futures[future], runs
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _named(block: Block) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise RunError(f"scenario {block.case.name}, policy {block.policy.name}: {error}") from error


@dataclass(slots=True)
class _Journal:
    runs: list[Run]
    file: Any

    def append(self, runs: Sequence[Run]) -> None:
        self.file.write(json.dumps(results.block_of(runs)) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())


@contextmanager
def _journal(path: Path, digests: Mapping[str, str]) -> Iterator[_Journal]:
    """Open the journal; a last line that a kill cut off is dropped."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    try:
        head: dict[str, Any] = json.loads(whole[0]) if whole else {"code": code_digest(), "scenarios": {}}
        _check(path, head, digests)
        runs = [run for line in whole[1:] for run in results.runs_of(json.loads(line))]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise JournalError(f"{path}: is not a journal of runs ({error}); {_FIX}") from error
    head["scenarios"].update(digests)
    with files.replacing(path, files.READABLE) as draft:
        draft.write((json.dumps(head) + "\n" + "".join(whole[1:])).encode())
    with path.open("a") as file:
        yield _Journal(runs, file)


_FIX = "remove the file or name another directory"


def _check(path: Path, head: dict[str, Any], digests: Mapping[str, str]) -> None:
    if head["code"] != code_digest():
        raise JournalError(f"{path}: its runs were made by another version of the program; {_FIX}")
    for name, digest in digests.items():
        if head["scenarios"].get(name, digest) != digest:
            raise JournalError(f"{path}: its runs of scenario {name} were made with another content of it; {_FIX}")


def code_digest() -> str:
    """Digest the code that figures depend on: simulator, agent and this package."""
    import penstock_agent
    import penstock_sim

    import penstock_rl

    digest = hashlib.sha256(Path(str(penstock_sim.__file__)).read_bytes())
    for package in (penstock_agent, penstock_rl):
        for path in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            if path.name not in _SHOWN_LATER:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
