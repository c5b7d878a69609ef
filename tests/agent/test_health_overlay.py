"""Which backends failed checks take out of use, and how they return."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_agent.desired import plan
from penstock_agent.health_overlay import NoTraffic, Standing, desired_state, select
from penstock_agent.plans import HealthRules
from penstock_embedded.messages import BackendState, SchedulerType

from tests.support.agent_objects import snapshot, vip

PASSES, LATE, FAILS = Standing(), Standing(healthy=False, late=True), Standing(healthy=False)
ACTIVE, UNREADY, FAILED = BackendState.ACTIVE, BackendState.UNREADY, BackendState.FAILED


class Traffic(NoTraffic):
    """Traffic of which a test says what it shows."""

    def __init__(self, *, answering=(), gone=(), pathless=False):
        self.answering, self.gone, self.pathless = answering, gone, pathless

    def answers(self, vip, backend):
        return backend in self.answering

    def silent(self, vip, backend):
        return backend in self.gone

    def no_path(self, vip):
        return self.pathless


def chosen(standings, *, last="", silent="", **rules):
    names = {str(index): standing for index, standing in enumerate(standings)}
    selection = select(names, HealthRules(**rules), frozenset(last), lambda backend: backend in silent)
    return "".join(sorted(selection.out)), selection.panic, selection.fail_open


@pytest.mark.parametrize(
    ("standings", "rules", "out"),
    [
        ([PASSES, PASSES], {}, ("", False, False)),
        ([PASSES, FAILS], {}, ("1", False, False)),
        ([PASSES, LATE], {}, ("1", False, False)),  # half of them pass
        ([PASSES, LATE, LATE], {}, ("", True, False)),  # fewer than half pass
        ([PASSES, LATE, FAILS], {}, ("2", True, False)),  # a refusal is no overload
        ([PASSES, FAILS, FAILS], {}, ("12", False, False)),
        ([PASSES, LATE, LATE], {"silent": "2"}, ("2", True, False)),  # clients got nothing from it
        ([PASSES, LATE, LATE], {"panic_percent": 0}, ("12", False, False)),
        ([PASSES, PASSES, PASSES, LATE], {"panic_percent": 80}, ("", True, False)),
        ([LATE, LATE], {}, ("", False, True)),
        ([FAILS, FAILS], {"last": "1"}, ("0", False, True)),
        ([FAILS, FAILS], {"fail_open": False, "last": "1"}, ("01", False, False)),
        ([LATE, LATE], {"fail_open": False}, ("01", False, False)),
        ([PASSES, FAILS, FAILS, FAILS], {"max_failed_percent": 50}, ("12", False, False)),
        ([PASSES, FAILS], {"max_failed_percent": 0}, ("", False, False)),
        ([FAILS, FAILS], {"max_failed_percent": 50, "last": "1"}, ("0", False, True)),
        ([FAILS, FAILS], {"max_failed_percent": 0, "last": "1"}, ("", False, True)),
        ([FAILS, FAILS], {"max_failed_percent": 50, "fail_open": False}, ("0", False, True)),
        ([FAILS, FAILS], {"max_failed_percent": 0, "fail_open": False}, ("", False, True)),
    ],
)
def test_what_is_taken_out_of_use(standings, rules, out):
    assert chosen(standings, **rules) == out


def test_what_failed_last_stays_in_use_where_only_a_share_may_be_taken_out():
    standings = [PASSES, *(Standing(healthy=False, since=float(since)) for since in (30, 10, 20))]
    assert chosen(standings, max_failed_percent=50)[0] == "23"


@given(
    st.lists(st.builds(Standing, st.booleans(), st.booleans(), st.floats(0, 100)), max_size=20),
    st.integers(0, 100),
    st.integers(0, 100),
    st.booleans(),
    st.frozensets(st.integers(0, 20).map(str)),
)
def test_passing_backends_stay_in_use_and_bounds_hold(standings, panic, most, fail_open, last):
    names = {str(index): standing for index, standing in enumerate(standings)}
    rules = HealthRules(panic_percent=panic, max_failed_percent=most, fail_open=fail_open)
    selection = select(names, rules, last, lambda backend: False)
    passing = {name for name, standing in names.items() if standing.healthy}
    assert not selection.out & passing
    assert len(selection.out) * 100 <= most * len(names)
    refuses = not passing and not fail_open and most == 100
    assert not names or (selection.out == frozenset(names)) == refuses


def test_of_backends_that_all_fail_a_share_stays_in_use_as_one_by_one_they_fail():
    rules = {"max_failed_percent": 50, "fail_open": False}
    standings = [Standing(healthy=False, since=float(since)) for since in (40, 10, 30, 20)]
    assert chosen([PASSES, *standings[1:]], **rules)[0] == "13"
    assert chosen(standings, **rules)[0] == "13"


def test_why_backends_that_all_fail_are_used():
    result = plan(snapshot(vip(healthCheck={"maxFailedPercent": 50, "failOpen": False})), None)
    outcome = overlaid(result, ["10.0.0.1", "10.0.0.2"])
    assert states(outcome) == [FAILED, ACTIVE]
    said = "those that failed last are used (healthCheck.maxFailedPercent)"
    assert outcome.used_instead(result.vips[0].vip.id) == said


def overlaid(result, failing, previous=None, *, now=0.0, traffic=None, standing=FAILS):
    def of(target):
        return standing if str(target.address) in failing else PASSES

    return desired_state(result, of, previous, (), now=now, traffic=traffic)


def states(outcome):
    return [backend.state for backend in outcome.state.vips[0].backends]


def test_flows_of_a_failed_backend_are_cut_unless_it_answers_its_clients():
    result = plan(snapshot(vip()), None)
    first = result.vips[0].vip.backends[0].id
    assert states(overlaid(result, ["10.0.0.1"])) == [FAILED, ACTIVE]
    assert states(overlaid(result, ["10.0.0.1"], traffic=Traffic(answering=[first]))) == [UNREADY, ACTIVE]


def test_a_backend_that_returns_has_its_share_grow():
    result = plan(snapshot(vip(healthCheck={"slowStartSeconds": 20})), None)
    core, first = result.vips[0].vip.id, result.vips[0].vip.backends[0].id
    failed = overlaid(result, ["10.0.0.1"], now=100.0)
    assert failed.ramps[core] == {}
    back = overlaid(result, [], failed, now=105.0)
    assert back.ramps[core] == {first: 105.0}
    assert back.state.vips[0].scheduler.type is SchedulerType.SED  # lsq reads no weights
    assert overlaid(result, [], back, now=124.0).ramps[core] == {first: 105.0}
    done = overlaid(result, [], back, now=125.0)
    assert done.ramps[core] == {}
    assert done.state.vips[0].scheduler.type is SchedulerType.LSQ


def test_a_backend_that_fails_again_while_its_share_grows_begins_anew():
    result = plan(snapshot(vip()), None)
    core, first = result.vips[0].vip.id, result.vips[0].vip.backends[0].id
    back = overlaid(result, [], overlaid(result, ["10.0.0.1"]), now=10.0)
    failed = overlaid(result, ["10.0.0.1"], back, now=11.0)
    assert failed.ramps[core] == {}
    assert overlaid(result, [], failed, now=12.0).ramps[core] == {first: 12.0}


def test_backends_that_never_failed_have_their_whole_share_at_once():
    result = plan(snapshot(vip()), None)
    assert overlaid(result, [], overlaid(result, [])).ramps[result.vips[0].vip.id] == {}


def test_a_vip_whose_clients_get_no_packet_has_no_path_only_while_checks_pass():
    result = plan(snapshot(vip()), None)
    core = result.vips[0].vip.id
    assert overlaid(result, [], traffic=Traffic(pathless=True)).no_path == {core}
    assert overlaid(result, []).no_path == frozenset()
    nothing_passes = overlaid(result, ["10.0.0.1", "10.0.0.2"], traffic=Traffic(pathless=True))
    assert nothing_passes.no_path == frozenset()
