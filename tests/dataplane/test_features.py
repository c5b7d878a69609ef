"""What is measured of flows, on every data plane the same."""

from __future__ import annotations

import pytest

from tests.support.dataplane import vip
from tests.support.subjects import Subject
from tests.support.talk import Talk


@pytest.mark.parametrize("level", ["basic", "full"])
def test_counters_count_what_was_sent(subject: Subject, level: str) -> None:
    built = vip(subject.lab, features=level)
    subject.apply(built)
    talks = [Talk(subject, source_port=51000 + number) for number in range(3)]
    for talk in talks:
        talk.open()
        talk.ask()
        talk.serve("PA", b"answer")
    counters = subject.counters(built)
    assert counters["n_flow"] == counters["n_flow_on"] == 3
    assert counters["n_packet"] == 3 * 3  # SYN, acknowledgement, question
    assert counters["n_fct"] == 0
    for talk in talks:
        talk.close()
    counters = subject.counters(built)
    assert (counters["n_flow"], counters["n_flow_on"], counters["n_fct"]) == (3, 0, 3)


def test_disorder_and_repetition_are_told_apart(subject: Subject) -> None:
    built = vip(subject.lab, features="basic")
    subject.apply(built)
    talk = Talk(subject)
    talk.open()
    early, late = talk.segment("PA", b"1" * 10), talk.segment("PA", b"2" * 10)
    late.seq += 10
    for segment in (late, early, early):
        subject.send("client", segment)
    counters = subject.counters(built)
    assert (counters["n_ooo"], counters["n_rtr"]) == (1, 2)
