"""What frames show of backends and of the path to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from penstock_agent.evidence import ANSWERING_SECONDS, NO_PATH_SECONDS, SILENT_SECONDS, Evidence

VIP = "v"


@dataclass
class Frame:
    """A frame of two slots; the arguments are totals since the backends took them."""

    sequence: int
    answers: tuple[int, int]
    client: tuple[int, int]
    server: tuple[int, int]
    generations: tuple[int, int] = (1, 1)
    time_us: int = 0
    peers: None = None

    @property
    def active(self):
        return np.array([True, True])

    @property
    def generation(self):
        return np.array(self.generations, dtype=np.uint8)

    @property
    def counters(self):
        client, server = np.array(self.client), np.array(self.server)
        return {"n_answer": np.array(self.answers), "n_packet": client, "packets": client + server}


def shown(*frames):
    evidence = Evidence()
    for sequence, (now, *totals) in enumerate(frames, start=1):
        evidence.observe(VIP, Frame(sequence, *totals), now)
    return evidence


def test_a_server_answers_for_a_while_after_its_last_payload():
    evidence = shown((0.0, (5, 5), (9, 9), (9, 9)), (1.0, (6, 5), (9, 9), (10, 9)))
    assert evidence.answers(VIP, 0, 1.0 + ANSWERING_SECONDS - 0.1)
    assert not evidence.answers(VIP, 0, 1.0 + ANSWERING_SECONDS)
    assert not evidence.answers(VIP, 1, 1.0)
    assert evidence.answered_since(VIP, 0, 0.5)
    assert not evidence.answered_since(VIP, 0, 1.0)


def test_acknowledgements_alone_are_no_answer():
    evidence = shown((0.0, (5, 5), (9, 9), (9, 9)), (1.0, (5, 5), (20, 9), (20, 9)))
    assert not evidence.answers(VIP, 0, 1.0)
    assert not evidence.silent(VIP, 0)


def test_a_server_is_silent_when_clients_send_again_and_again_without_a_packet_back():
    frames = [(0.0, (5, 5), (9, 9), (9, 9)), (1.0, (5, 6), (10, 10), (9, 10))]
    assert not shown(*frames).silent(VIP, 0)  # its answer may be on its way
    again = (1.0 + SILENT_SECONDS, (5, 7), (11, 11), (9, 11))
    assert shown(*frames, again).silent(VIP, 0)
    assert not shown(*frames, again).silent(VIP, 1)
    later = (30.0, (5, 7), (11, 11), (9, 11))  # it gets nothing any more, so nothing is learned
    assert shown(*frames, again, later).silent(VIP, 0)
    assert not shown(*frames, again, (31.0, (5, 7), (11, 11), (10, 11))).silent(VIP, 0)


def test_the_last_acknowledgement_of_a_connection_makes_no_server_silent():
    idle = [(0.0, (5, 5), (9, 9), (9, 9)), (1.0, (5, 5), (10, 9), (9, 9)), (60.0, (5, 5), (10, 9), (9, 9))]
    assert not shown(*idle).silent(VIP, 0)
    next_connection = (61.0, (6, 5), (12, 9), (11, 9))  # both ends send between two frames
    assert not shown(*idle, next_connection).silent(VIP, 0)


def test_another_backend_in_a_slot_begins_anew():
    frames = [(0.0, (5, 5), (9, 9), (9, 9)), (1.0, (6, 5), (10, 9), (10, 9))]
    taken_over = (2.0, (0, 5), (0, 9), (0, 9), (2, 1))
    assert not shown(*frames, taken_over).answers(VIP, 0, 2.0)


def test_a_vip_has_no_path_when_no_server_sends_anything():
    start = (0.0, (5, 5), (9, 9), (9, 9))
    blocked = [(float(second), (5, 5), (9 + second, 9), (9, 9)) for second in range(1, 2 + int(NO_PATH_SECONDS))]
    assert shown(start, *blocked).no_path(VIP)
    assert not shown(start, *blocked[:-1]).no_path(VIP)
    again = (30.0, (5, 5), (40, 9), (9, 10))
    assert not shown(start, *blocked, again).no_path(VIP)


def test_frames_without_the_counter_show_nothing():
    class Old(Frame):
        @property
        def counters(self):
            return {"packets": np.array([1, 1]), "n_packet": np.array([1, 1])}

    evidence = Evidence()
    evidence.observe(VIP, Old(1, (0, 0), (0, 0), (0, 0)), 0.0)
    assert not evidence.answers(VIP, 0, 0.0)
    assert not evidence.no_path(VIP)


def test_vips_that_went_are_dropped():
    evidence = shown((0.0, (5, 5), (9, 9), (9, 9)), (1.0, (6, 5), (9, 9), (10, 9)))
    evidence.retain(())
    assert not evidence.answers(VIP, 0, 1.0)
