"""What `make lab` concludes from two sides that agree, differ or were disturbed."""

from __future__ import annotations

import pytest
from penstock_rl.evaluation.results import Run
from rich.console import Console

from tools.lab.__main__ import conclude
from tools.lab.comparison import Comparison, Side, table


def side(mean: float, p90: float, failed: int = 0) -> Side:
    run = Run("some", "lsq", 1, 100, failed, mean, mean, p90, 2 * p90, 1.0, 1.0)
    return Side(run, (60, 40), (0.5, 0.6))


def comparison(simulator: Side, disturbance: str = "") -> Comparison:
    return Comparison("some", "lsq", 1.0, simulator, side(0.1, 0.2), disturbance)


@pytest.mark.parametrize(
    ("found", "status", "message"),
    [
        (comparison(side(0.11, 0.18)), 0, ""),
        (comparison(side(0.12, 0.2)), 1, "some, lsq: simulator and real servers differ by more than 15%"),
        (comparison(side(0.1, 0.16)), 1, "differ by more than 15%"),
        (comparison(side(0.1, 0.2, failed=1)), 1, "other numbers of requests failed"),
        (
            comparison(side(0.2, 0.4), "the client was late"),
            2,
            "some, lsq: nothing can be concluded: the client was late",
        ),
    ],
)
def test_the_status_and_the_message_say_what_was_found(found: Comparison, status: int, message: str) -> None:
    console = Console(record=True, width=160)
    console.print(table([found]))
    assert conclude([found], console) == status
    assert message in console.export_text()


def test_a_difference_counts_more_than_a_disturbance() -> None:
    found = [comparison(side(0.2, 0.4), "the client was late"), comparison(side(0.2, 0.4))]
    assert conclude(found, Console(record=True)) == 1


def test_the_table_has_both_sides_and_their_difference() -> None:
    console = Console(record=True, width=160)
    console.print(table([comparison(side(0.11, 0.18))]))
    text = console.export_text()
    for words in ("simulator 100", "110.0", "+10.0%", "180.0", "-10.0%", "laboratory 100", "60 40", "0.50 0.60"):
        assert words in text
