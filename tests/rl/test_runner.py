"""The runner: order, processes, resuming after a kill, journals of other runs, failures."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from penstock_rl.evaluation import policies, results, runner
from penstock_rl.evaluation.cases import Case
from penstock_rl.evaluation.results import Results
from penstock_rl.evaluation.runner import JOURNAL, Block, JournalError, RunError

from tests.rl.small import case

CHOSEN = policies.select(["lsq", "little"])
SEEDS = (1, 2, 3)


def evaluate(
    out: Path, *cases: Case, chosen: tuple[policies.Evaluated, ...] = CHOSEN, processes: int = 1
) -> tuple[Results, list[Block]]:
    ran: list[Block] = []
    found = runner.evaluate(
        cases or (case(),),
        chosen,
        SEEDS,
        out=out,
        processes=processes,
        progress=lambda done, total, block: ran.append(block),
    )
    return found, ran


def test_runs_are_in_the_order_of_the_arguments(tmp_path: Path) -> None:
    found, ran = evaluate(tmp_path, case(), case(name="other"))
    assert found.scenarios == ("small", "other")
    assert found.policies == tuple(each.name for each in CHOSEN)
    assert [run.seed for run in found.runs[:3]] == [1, 2, 3]
    assert len(ran) == 2 * len(CHOSEN)


def test_processes_change_nothing(tmp_path: Path) -> None:
    one, _ = evaluate(tmp_path / "one")
    two, _ = evaluate(tmp_path / "two", processes=2)
    assert results.dump(one) == results.dump(two)


def test_what_was_done_is_not_done_again(tmp_path: Path) -> None:
    evaluate(tmp_path, chosen=CHOSEN[:1])
    found, ran = evaluate(tmp_path)
    assert [block.policy.name for block in ran] == [each.name for each in CHOSEN[1:]]
    again, ran = evaluate(tmp_path)
    assert not ran
    assert results.dump(again) == results.dump(found)


def test_a_line_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    whole, _ = evaluate(tmp_path)
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-40])
    found, ran = evaluate(tmp_path)
    assert len(ran) == 1
    assert results.dump(found) == results.dump(whole)


_PROGRAM = """
from pathlib import Path
import sys
from penstock_rl.evaluation import runner
from tests.rl.small import case
from tests.rl.test_runner import CHOSEN, SEEDS
if __name__ == "__main__":
    cases = [case(name=f"small-{i}") for i in range(4)]
    runner.evaluate(cases, CHOSEN, SEEDS, out=Path(sys.argv[1]), processes=int(sys.argv[2]))
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_evaluation_goes_on(tmp_path: Path, processes: int) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parents[2]}:{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen(
        [sys.executable, str(program), str(tmp_path / "out"), str(processes)], env=environment, start_new_session=True
    )
    journal = tmp_path / "out" / JOURNAL
    while process.poll() is None and (not journal.exists() or len(journal.read_bytes().splitlines()) < 4):
        time.sleep(0.01)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    cases = [case(name=f"small-{i}") for i in range(4)]
    resumed, ran = evaluate(tmp_path / "out", *cases)
    assert len(ran) <= len(cases) * len(CHOSEN) - 3
    whole, _ = evaluate(tmp_path / "whole", *cases)
    assert results.dump(resumed) == results.dump(whole)


def test_runs_of_another_content_are_not_mixed_in(tmp_path: Path) -> None:
    evaluate(tmp_path)
    with pytest.raises(JournalError, match=r"runs\.jsonl: its runs of scenario small .*name another directory"):
        evaluate(tmp_path, case(arrivals={"load": 0.5}))


def test_runs_of_another_program_are_not_mixed_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(tmp_path)
    monkeypatch.setattr(runner, "code_digest", lambda: "another")
    with pytest.raises(JournalError, match="another version of the program"):
        evaluate(tmp_path)


@pytest.mark.parametrize("text", ["{}\n", "[]\n", "no json\n", '{"code": "x"}\n'])
def test_a_journal_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / JOURNAL).write_text(text)
    with pytest.raises(JournalError, match=r"runs\.jsonl: .*remove the file"):
        evaluate(tmp_path)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_block_that_fails_is_named_and_the_others_are_kept(tmp_path: Path, processes: int) -> None:
    broken = policies.Evaluated("broken", "broken", "no such heuristic")
    with pytest.raises(RunError, match=r"scenario small, policy broken: .*no such heuristic"):
        evaluate(tmp_path, chosen=(*CHOSEN, broken), processes=processes)
    _, ran = evaluate(tmp_path)
    assert len(ran) < len(CHOSEN)


def test_blocks_are_bounded_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = evaluate(tmp_path / "whole")
    monkeypatch.setattr(runner, "REQUESTS_AT_ONCE", case().requests * 1.5)
    found, ran = evaluate(tmp_path / "split")
    assert {len(block.seeds) for block in ran} == {1}
    assert results.dump(found) == results.dump(whole)


def test_expected_requests_are_those_that_arrive(tmp_path: Path) -> None:
    found, _ = evaluate(tmp_path)
    arrived = [run.completed + run.failed for run in found.runs if run.policy == "lsq"]
    after_warm_up = case().requests * 10 / 12
    assert np.mean(arrived) == pytest.approx(after_warm_up, rel=0.1)
