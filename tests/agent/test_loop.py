"""The loop on real shared-memory objects: decisions, modes, and everything that can be wrong with a file."""

from __future__ import annotations

import asyncio
import contextlib
import time

import numpy as np
import penstock_core
import pytest
from penstock_agent.desired import PolicyChoice
from penstock_agent.loop import LoopVip, Reason, WeightLoop
from penstock_agent.observation import Slots
from penstock_agent.policies import POLICIES, Decision, Policy

from tests.support.waiting import eventually, running

SLOTS = 8


class Rig:
    """One VIP with two backends in slots 0 and 1: backend 1 is four times as fast."""

    def __init__(self, directory):
        self.frames = directory / "penstock.1.frames"
        self.actions = directory / "penstock.1.actions"
        self.dumps = 0
        self.now_us = None
        self.loop = WeightLoop(
            open_reader=lambda path: penstock_core.FrameReader(str(path)),
            open_writer=lambda path, slots: penstock_core.ActionsWriter(str(path), slots),
            now_us=lambda: self.now_us or penstock_core.boottime_us(),
            on_unknown_slots=self._asked,
        )
        self.writer = None

    def _asked(self):
        self.dumps += 1

    def publish(self, *, slots=SLOTS, generations=(1, 1), fct=(0.4, 0.1), instance="one"):
        """Make a frames object as a data plane would."""
        now = penstock_core.boottime_us()
        self.frames.unlink(missing_ok=True)
        self.writer = penstock_core.FrameWriter(str(self.frames), slots, instance_id=instance, time_us=now)
        for slot, (generation, seconds) in enumerate(zip(generations, fct, strict=True)):
            self.writer.open_slot(slot, generation)
            self.writer.count(slot, "n_flow", 10)
            for _ in range(20):
                self.writer.sample(slot, "fct", seconds, now)
        self.writer.publish(now)

    def configure(
        self,
        *,
        in_force=(1.0, 1.0),
        base_in_force=None,
        configured=(1.0, 1.0),
        takes=(True, True),
        slots=SLOTS,
        ramps=None,
        balancers=1,
        **choice,
    ):
        self.loop.configure(
            [
                LoopVip(
                    id="1",
                    key="shop/web:80/TCP/IPv4",
                    frames=self.frames,
                    actions=self.actions,
                    slots=Slots.of(slots, [(i, f"b{i}", configured[i], takes[i]) for i in range(len(configured))]),
                    in_force=np.array([*in_force, *[0.0] * (slots - len(in_force))]),
                    base_in_force=base_in_force,
                    choice=PolicyChoice.model_validate(
                        {
                            "heuristic": "inverse-duration",
                            "mode": "Active",
                            "fallback": "lsq",
                            "interval": 0.2,
                            "max_weight_ratio": 10,
                            "max_change_per_step": 1.0,
                            "max_frame_age": 1.0,
                            **choice,
                        }
                    ),
                    balancers=balancers,
                    ramps=ramps or {},
                    slow_start=10.0,
                )
            ]
        )

    @property
    def steering(self):
        return self.loop.vips["1"]

    def step(self, times=1):
        for _ in range(times):
            self.loop.step(self.steering)
        return self.written()

    def written_base(self):
        """First two bases that the data plane would read; None: the frame has none."""
        base = penstock_core.ActionsReader(str(self.actions)).read().base
        return None if base is None else base[:2].tolist()

    def written(self):
        """First two weights that the data plane would read."""
        if not self.actions.exists():
            return None
        return penstock_core.ActionsReader(str(self.actions)).read().weights[:2].tolist()


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path)
    rig.publish()
    rig.configure()
    return rig


def test_faster_backends_get_more(rig):
    assert rig.step() == pytest.approx([0.5, 2.0])
    assert rig.steering.reason is None
    assert rig.steering.steps["active"] == 1


def test_steps_are_paced(rig):
    rig.configure(max_change_per_step=0.25)
    assert rig.step() == pytest.approx([0.75, 1.25])
    assert rig.steering.held["slowed"] == 2
    assert rig.step(10) == pytest.approx([0.5, 2.0])


def test_a_restarted_agent_goes_on_from_the_weights_in_force(rig):
    rig.configure(in_force=(0.5, 2.0), max_change_per_step=0.01)
    assert rig.step() == pytest.approx([0.5, 2.0])


def test_shadow_shows_and_changes_nothing(rig):
    rig.configure(mode="Shadow", max_change_per_step=0.25)
    assert rig.step() == [1.0, 1.0]
    assert rig.steering.wanted[:2].tolist() == pytest.approx([0.75, 1.25])
    assert rig.step(10) == [1.0, 1.0]
    assert rig.steering.wanted[:2].tolist() == pytest.approx([0.5, 2.0])
    assert rig.steering.reason is Reason.SHADOW


def test_off_does_not_decide(rig):
    rig.configure(mode="Off", fallback="static", configured=(3.0, 5.0))
    assert rig.step() == [3.0, 5.0]
    assert rig.steering.wanted is None
    assert rig.steering.reason is Reason.OFF


def test_a_policy_starts_from_the_weights_of_the_fallback(rig):
    rig.configure(mode="Off", fallback="static", configured=(1.0, 9.0))
    rig.step()
    rig.configure(configured=(1.0, 9.0), max_change_per_step=0.5)
    assert rig.step() == pytest.approx([0.5, 2.0])
    assert rig.steering.held["slowed"] == 0


def test_backends_out_of_use_weigh_nothing(rig):
    rig.configure(takes=(True, False))
    assert rig.step() == [1.0, 0.0]


def test_without_any_backend_in_use_nothing_is_written(rig):
    rig.configure(takes=(False, False))
    assert rig.step() is None


@pytest.mark.parametrize(("seconds", "share"), [(0, 0.2), (1, 0.2), (3, 0.4), (5, 0.6), (9, 1.0), (30, 1.0)])
def test_the_weight_of_a_backend_that_returned_grows_in_steps(rig, seconds, share):
    rig.publish()
    rig.configure(heuristic="lsq", ramps={"b1": time.monotonic() - seconds, "unknown": 0.0})
    rig.loop.step(rig.steering)
    assert rig.written() == pytest.approx([1.0, share])


def test_stale_frames_are_not_decided_on(rig):
    rig.step()
    rig.now_us = penstock_core.boottime_us() + 2_000_000
    assert rig.step() == [1.0, 1.0]
    assert rig.steering.reason is Reason.STALE
    assert rig.steering.troubled_at is not None
    rig.now_us = None
    rig.writer.publish(penstock_core.boottime_us())
    rig.step()
    assert rig.steering.reason is None
    assert rig.steering.troubled_at is None


def test_an_unmeasured_policy_does_not_care_for_stale_frames(rig):
    rig.configure(heuristic="static", configured=(3.0, 5.0))
    rig.now_us = penstock_core.boottime_us() + 60_000_000
    assert rig.step() == [3.0, 5.0]
    assert rig.steering.reason is None


def corrupt_truncated(path):
    path.write_bytes(path.read_bytes()[:300])


def corrupt_foreign(path):
    path.write_bytes(b"\x7fELF" + path.read_bytes()[4:])


def corrupt_empty(path):
    path.write_bytes(b"")


def corrupt_header(path):
    content = bytearray(path.read_bytes())
    content[64:128] = b"\xff" * 64
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [corrupt_truncated, corrupt_foreign, corrupt_empty, corrupt_header])
@pytest.mark.parametrize("opened_before", [False, True])
def test_damaged_frames_mean_fallback(rig, damage, opened_before):
    if opened_before:
        rig.step()
    damage(rig.frames)
    rig.steering.reader = None if damage is not corrupt_truncated else rig.steering.reader
    rig.step()
    assert rig.steering.reason is Reason.UNREADABLE
    assert "penstock.1.frames" in rig.steering.error
    assert rig.dumps == 1
    rig.publish()
    rig.step()
    assert rig.steering.reason is None


def test_vanished_frames_mean_fallback(rig):
    rig.frames.unlink()
    rig.step()
    assert rig.steering.reason is Reason.UNREADABLE
    assert rig.steering.steps["unreadable"] == 1


def test_retired_frames_are_replaced_by_the_object_of_the_same_name(rig):
    rig.step()
    old = rig.writer
    rig.publish(instance="two", fct=(0.1, 0.4))
    old.retire()
    assert rig.step(3) == pytest.approx([2.0, 0.5])
    assert rig.steering.reader.instance_id == "two"


def test_an_object_replaced_without_notice_is_found_once_it_is_stale(rig):
    rig.step()
    rig.publish(instance="two", fct=(0.1, 0.4))
    rig.now_us = penstock_core.boottime_us() + 1_500_000
    rig.step()
    assert rig.steering.reason is Reason.STALE
    rig.now_us = None
    rig.writer.publish(penstock_core.boottime_us())
    assert rig.step() == pytest.approx([2.0, 0.5])


def test_grown_tables_ask_for_the_new_slots(rig):
    rig.step()
    rig.publish(slots=16)
    rig.writer.publish(penstock_core.boottime_us())
    rig.steering.reader = None
    rig.step()
    assert rig.steering.reason is Reason.UNREADABLE
    assert rig.dumps == 1
    rig.configure(slots=16)
    assert rig.step() == pytest.approx([0.5, 2.0])
    assert len(penstock_core.ActionsReader(str(rig.actions)).read().weights) == 16


def test_a_slot_with_another_backend_starts_afresh(rig):
    rig.step()
    rig.publish(generations=(1, 2), instance="two")
    rig.steering.reader = None
    rig.configure(max_change_per_step=0.25)
    assert rig.dumps == 0
    rig.step()
    assert rig.dumps == 1
    # 1 again, then one paced step towards 2.0; slot 0 stays.
    assert rig.written() == pytest.approx([0.5, 1.25])


def test_backends_we_do_not_know_make_us_ask_but_not_in_every_step(rig):
    rig.writer.open_slot(5, 1)
    rig.writer.publish(penstock_core.boottime_us())
    rig.step(3)
    assert rig.dumps == 1


def test_weights_go_out_with_the_generations_they_were_computed_for(rig):
    rig.step()
    assert penstock_core.ActionsReader(str(rig.actions)).read().generation[:3].tolist() == [1, 1, 0]


@contextlib.contextmanager
def registered(decide):
    POLICIES["test"] = Policy("test", POLICIES["little"].scheduler, ("fct",), decide)
    try:
        yield
    finally:
        del POLICIES["test"]


def test_a_failing_policy_costs_its_vip_the_fallback_and_nothing_else(rig):
    with registered(lambda observation, state: 1 / 0):
        rig.configure(heuristic="test", fallback="static", configured=(3.0, 5.0))
        assert rig.step(2) == [3.0, 5.0]
        assert rig.steering.reason is Reason.FAILED
        assert "policy test: division by zero" in rig.steering.error


def test_absurd_weights_are_guarded(rig):
    with registered(lambda observation, state: (Decision(np.full(SLOTS, np.nan)), state)):
        rig.configure(heuristic="test")
        assert rig.step() == [1.0, 1.0]
        assert rig.steering.held["invalid"] == 2


def with_base(*bases):
    """Return a policy's rule that sets these bases."""
    return lambda observation, state: (Decision(np.ones(SLOTS), np.array([*bases, *[1.0] * (SLOTS - 2)])), state)


def test_bases_are_written_with_the_weights(rig):
    with registered(with_base(1.5, 0.25)):
        rig.configure(heuristic="test")
        assert rig.step() == [1.0, 1.0]
        assert rig.written_base() == [1.5, 0.25]
        assert rig.steering.base[2:].tolist() == [0.0] * (SLOTS - 2)  # nobody is there
        rig.configure(heuristic="test", mode="Off")
        rig.step()
        assert rig.written_base() is None


def test_what_bases_are_added_to_is_written_with_them(rig):
    everybody = np.ones(SLOTS), np.full(SLOTS, 2.0)
    for shared in (True, False):
        with registered(lambda observation, state, shared=shared: (Decision(*everybody, shared=shared), state)):
            rig.configure(heuristic="test")
            rig.step()
            assert penstock_core.ActionsReader(str(rig.actions)).read().shared is shared


def test_bases_move_by_steps_from_those_in_force(rig):
    with registered(with_base(3.0, 3.0)):
        rig.configure(heuristic="test", max_change_per_step=0.25, base_in_force=np.array([1.0, *[0.0] * (SLOTS - 1)]))
        rig.step()
        assert rig.written_base() == pytest.approx([1.5, 1.5])
        rig.writer.open_slot(1, 9)  # another backend, which starts from the common base
        rig.writer.publish(penstock_core.boottime_us())
        rig.step()
        assert rig.written_base() == pytest.approx([2.125, 1.5])
        assert rig.steering.held["slowed"] == 4


def test_bases_of_a_policy_in_shadow_are_shown_and_not_written(rig):
    with registered(with_base(1.5, 0.25)):
        rig.configure(heuristic="test", mode="Shadow")
        rig.step()
    assert rig.written_base() is None
    assert rig.steering.wanted_base[:2].tolist() == [1.5, 0.25]


def test_slow_start_leaves_bases_alone(rig):
    with registered(with_base(1.5, 0.25)):
        rig.configure(heuristic="test", ramps={"b1": time.monotonic()})
        assert rig.step() == pytest.approx([1.0, 0.2])
    assert rig.written_base() == [1.5, 0.25]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_an_invalid_base_becomes_the_common_one_and_is_counted(rig, bad):
    with registered(with_base(1.5, bad)):
        rig.configure(heuristic="test")
        rig.step()
    assert rig.written_base() == [1.5, 0.0]
    assert rig.steering.held["invalid"] == 1


def test_policies_see_how_many_balancers_share_the_vip(rig):
    with registered(lambda observation, state: (Decision(observation.configured), observation.balancers)):
        rig.configure(heuristic="test", balancers=3)
        rig.step()
    assert rig.steering.policy_state == 3


def test_actions_that_cannot_be_written_are_counted(rig):
    rig.actions.mkdir()
    rig.loop.step(rig.steering)
    assert rig.steering.write_errors == 1
    assert "actions of shop/web" in rig.steering.error


async def test_intervals_are_the_policies_own(rig):
    rig.configure(interval=0.6)
    for _ in range(3):
        await rig.loop.turn()
    assert rig.steering.steps["active"] == 1
    rig.steering.due = time.monotonic()
    await rig.loop.turn()
    assert rig.steering.steps["active"] == 2


@pytest.mark.alone
async def test_the_loop_runs_five_times_a_second_and_lets_others_run(rig):
    async with running(rig.loop.run()):
        await eventually(lambda: rig.loop.turns >= 3)
        await asyncio.sleep(0)
    assert rig.loop.turn_seconds < 0.1
    assert time.monotonic() - rig.loop.progress_at < 1


def test_vips_that_leave_are_forgotten(rig):
    rig.step()
    rig.loop.configure([])
    assert dict(rig.loop.vips) == {}
