"""What a plan changes, by tables: no data plane, no node."""

from __future__ import annotations

import json
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock_embedded import allowed
from penstock_embedded.messages import Announcement, Backend, DesiredState, NatSource, Scheduler, SchedulerType, Vip
from penstock_embedded.plan import Change, RemoveVip, SetNode, SetSources, SetVip, announceable, plan, warnings
from penstock_embedded.refusals import Bounds, places, refusals
from penstock_embedded.state import Keeper, State, load

KEY = "00112233445566778899aabbccddeeff"
SOURCE = NatSource(address=ip_address("10.0.0.1"), port_first=16384, port_last=28671)


def vip(number: int, **changes: Any) -> Vip:
    fields = {"id": f"{number:016x}", "key": f"shop/web{number}", "addresses": (f"203.0.113.{number}",), "port": 80}
    return Vip.model_validate(fields | changes)


def desired(*vips: Vip, **changes: Any) -> DesiredState:
    fields: dict[str, Any] = {"generation": 1, "scheduler_key": KEY, "nat_sources": (SOURCE,), "vips": vips}
    return DesiredState(**(fields | changes))


def in_force(*vips: Vip) -> State:
    return State(scheduler_key=KEY, nodes=1, nat_sources=(SOURCE,), vips={each.id: each for each in vips})


def test_from_nothing_everything_is_set_with_node_and_sources_first() -> None:
    changes = plan(desired(vip(1), vip(2)), State()).changes
    assert changes == (SetNode(KEY, 1), SetSources((SOURCE,)), SetVip(vip(1)), SetVip(vip(2)))


@pytest.mark.parametrize(
    ("field", "value"),
    [("port", 81), ("protocol", "UDP"), ("forwarding", "GRE"), ("addresses", ("2001:db8::1",))],
)
def test_what_cannot_change_is_refused_and_nothing_is_moved_for_it(field: str, value: Any) -> None:
    one, two = vip(1), vip(2)
    exchanged = vip(1, **{"addresses": two.addresses, field: value}), vip(2, addresses=one.addresses)
    planned = plan(desired(*exchanged), in_force(one, two))
    assert (planned.refused[one.id].code, planned.refused[one.id].field) == ("unsupported", field)
    assert planned.changes == ()
    assert planned.refused[two.id].code == "conflict"  # what it wants is kept by the other


NEVER = (
    *("0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.169.254", "192.0.0.192", "224.0.0.1", "240.0.0.1"),
    *(
        "255.255.255.255",
        "100.100.100.200",
        "168.63.129.16",
        "::",
        "::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "fd00:ec2::254",
    ),
    *("64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:a9fe:a9fe::1", "2001::1", "::a00:1"),
)
TUNNEL: dict[str, Any] = {"forwarding": "GRE", "addresses": ("2001:db8::80",)}


def of_family(version: int, **changes: Any) -> dict[str, Any]:
    return {"id": "web-0", "address": "10.1.0.1" if version == 4 else "2001:db8::7", "port": 80} | changes


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": "0" * 16}, "id"),
        ({"scheduler": {"type": "maglev", "table_size": 65536}}, "scheduler.table_size"),
        ({"addresses": ("203.0.113.2", "203.0.113.2")}, "addresses.1"),
        *(({"addresses": (text,)}, "addresses.0") for text in NEVER),
        ({"backends": (of_family(4, address="203.0.113.2"),)}, "backends.0.address"),
        ({"backends": (of_family(4), of_family(6, id="web-1"))}, "backends.1.address"),
        *(
            (wrong, "backends.1.address")
            for text in NEVER
            for wrong in [{"forwarding": "GRE", "backends": (of_family(4), of_family(4, id="web-1", address=text))}]
        ),
        (TUNNEL | {"tunnel_mtu": 1303, "backends": ()}, "tunnel_mtu"),
        (TUNNEL | {"tunnel_mtu": 1303, "backends": (of_family(4),)}, "tunnel_mtu"),
        (TUNNEL | {"tunnel_mtu": 1323, "backends": (of_family(4), of_family(6, id="web-1"))}, "tunnel_mtu"),
    ],
)
def test_what_no_vip_can_be_is_refused_by_field_and_nothing_is_moved_for_it(
    changes: dict[str, Any], field: str
) -> None:
    two, three = vip(2), vip(3)
    wrong = vip(3, **({"addresses": two.addresses} | changes))
    planned = plan(desired(wrong, vip(2, addresses=three.addresses)), in_force(two, three))
    assert (planned.refused[wrong.id].code, planned.refused[wrong.id].field) == ("invalid", field)
    assert planned.refused[wrong.id].fix
    if wrong.id == three.id:
        assert planned.changes == ()
        assert planned.refused[two.id].code == "conflict"


@pytest.mark.parametrize("forwarding", ["NAT", "GRE"])
def test_a_backend_at_the_address_of_another_vip_is_refused_by_field(forwarding: str) -> None:
    looping = vip(1, forwarding=forwarding, backends=(of_family(4), of_family(4, id="web-1", address="203.0.113.2")))
    for before in (in_force(), in_force(vip(2))):
        planned = plan(desired(looping, vip(2)), before)
        assert list(planned.refused) == [looping.id]
        error = planned.refused[looping.id]
        assert (error.code, error.field) == ("conflict", "backends.1.address")
        assert "203.0.113.2 is an address of shop/web2" in error.message and error.fix


def test_a_vip_that_takes_the_address_of_a_backend_in_force_leaves_that_backends_vip_alone() -> None:
    serving = vip(1, backends=(of_family(4, address="203.0.113.2"),))
    planned = plan(desired(serving, vip(2)), in_force(serving))
    assert not planned.refused
    assert planned.changes == (SetVip(vip(2)),)


def test_backends_behind_a_tunnel_are_of_any_family() -> None:
    assert not plan(desired(vip(1, forwarding="GRE", backends=(of_family(6),))), in_force()).refused


@pytest.mark.parametrize(
    ("address", "mtu", "versions"),
    [
        ("203.0.113.9", 1280, (4, 6)),
        ("2001:db8::80", 1304, (4,)),
        ("2001:db8::80", 1324, (4, 6)),
        ("2001:db8::80", 1304, ()),
    ],
)
def test_a_tunnel_that_carries_the_least_packet_of_its_clients_is_taken(
    address: str, mtu: int, versions: tuple[int, ...]
) -> None:
    backends = tuple(of_family(version, id=f"web-{version}") for version in versions)
    wanted = vip(1, forwarding="GRE", addresses=(address,), tunnel_mtu=mtu, backends=backends)
    assert not plan(desired(wanted), in_force()).refused


def test_who_is_refused_keeps_its_address_and_so_does_who_wanted_it() -> None:
    # 1 may not have what it wants, so 2 cannot have what 1 keeps, nor 3 what 2 keeps, nor 4 what 3 keeps.
    before = [vip(number) for number in (1, 2, 3, 4)]
    wanted = [vip(number, addresses=(f"203.0.113.{number - 1}",)) for number in (2, 3, 4)]
    for order in (wanted, wanted[::-1]):
        planned = plan(desired(*order, vip(1, addresses=("10.0.0.1",))), in_force(*before))
        assert planned.changes == ()
        assert {known: error.field for known, error in planned.refused.items()} == {
            each.id: "addresses" for each in before
        }


@settings(deadline=None)
@given(st.data())
def test_refused_vips_are_those_that_repeated_comparison_finds(data: st.DataObject) -> None:
    numbers = st.lists(st.integers(1, 6), min_size=1, max_size=3, unique=True)
    force = [vip(n, addresses=(f"203.0.113.{n}", f"203.0.113.{n + 100}")) for n in range(1, 7)]
    before = in_force(*(each for each in force if data.draw(st.booleans())))
    wanted = []
    for n in data.draw(st.permutations(range(1, 9))):
        hosts = [host + data.draw(st.sampled_from((0, 100))) for host in data.draw(numbers)]
        port = data.draw(st.sampled_from((80, 81)))  # another port than in force is refused
        wanted.append(vip(n, addresses=tuple(f"203.0.113.{host}" for host in hosts), port=port))
    changed = {each.id for each in wanted if before.vips.get(each.id) != each}
    found = refusals(desired(*wanted), before, changed)
    assert found.keys() == repeatedly_compared(wanted, before)
    assert all(error.message and error.fix for error in found.values())


def repeatedly_compared(wanted: list[Vip], before: State) -> set[str]:
    """Find who is refused by comparing everybody with everybody until nothing changes."""
    refused = {vip.id for vip in wanted if vip.id in before.vips and before.vips[vip.id].port != vip.port}
    while True:
        taken = {place for known in refused & before.vips.keys() for place in places(before.vips[known])}
        found = set()
        for each in wanted:
            if each.id in refused:
                continue
            if places(each) & taken:
                found.add(each.id)
            else:
                taken |= places(each)
        if not found:
            return refused
        refused |= found


def test_a_chain_of_refusals_is_found_in_one_pass() -> None:
    # Each wants the address of the one before, and the first may not have what it wants.
    count = 2000
    hosts = [f"10.9.{n // 250}.{n % 250 + 1}" for n in range(count)]
    force = [vip(n + 1, addresses=(host,)) for n, host in enumerate(hosts)]
    wanted = [vip(n + 1, addresses=(hosts[n - 1],)) for n in range(1, count)]
    began = time.process_time()
    planned = plan(desired(*reversed(wanted), vip(1, addresses=("10.0.0.1",))), in_force(*force))
    assert len(planned.refused) == count
    assert time.process_time() - began < 5  # comparing each time anew takes minutes


def test_nat_sources_take_no_address_from_a_vip_that_keeps_it_or_drains() -> None:
    taken = SOURCE.model_copy(update={"address": ip_address("203.0.113.1")})
    draining = in_force(vip(2)).model_copy(update={"removing": {vip(1).id: vip(1)}})
    for wanted, actual in (
        ((vip(1), vip(2)), in_force(vip(1), vip(2))),
        ((vip(2),), in_force(vip(1), vip(2))),
        ((vip(2),), draining),
    ):
        planned = plan(desired(*wanted, nat_sources=(SOURCE, taken)), actual)
        assert not any(isinstance(change, SetSources) for change in planned.changes)
        (error,) = planned.errors
        assert (error.code, error.field) == ("conflict", "nat_sources.1.address")
        assert "203.0.113.1 is an address of shop/web1" in error.message
        assert error.fix
    moved = plan(desired(vip(1, addresses=("203.0.113.9",)), nat_sources=(SOURCE, taken)), in_force(vip(1)))
    assert not moved.errors
    assert SetSources((SOURCE, taken)) in moved.changes


@pytest.mark.parametrize(
    ("field", "value"), [("port", 81), ("protocol", "UDP"), ("forwarding", "GRE"), ("addresses", ("2001:db8::1",))]
)
def test_what_a_draining_vip_cannot_become_is_refused_by_field(field: str, value: Any) -> None:
    actual = in_force().model_copy(update={"removing": {vip(1).id: vip(1)}})
    planned = plan(desired(vip(1, **{field: value})), actual)
    assert (planned.refused[vip(1).id].code, planned.refused[vip(1).id].field) == ("unsupported", field)
    assert planned.changes == ()


def test_what_is_in_force_is_left_alone() -> None:
    assert plan(desired(vip(1)), in_force(vip(1))).changes == ()
    assert plan(desired(vip(1), generation=7), in_force(vip(1))).changes == ()


@pytest.mark.parametrize(
    ("wanted", "actual", "found", "expected"),
    [
        (desired(vip(1, drain_timeout=7)), in_force(vip(1)), (), [SetVip(vip(1, drain_timeout=7))]),
        (desired(), in_force(vip(1)), (), [RemoveVip(vip(1).id)]),
        (desired(vip(2)), in_force(vip(1)), (), [RemoveVip(vip(1).id), SetVip(vip(2))]),
        (desired(vip(1), nodes=3), in_force(vip(1)), (), [SetNode(KEY, 3)]),
        (desired(vip(1), nat_sources=()), in_force(vip(1)), (), [SetSources(())]),
        # An arena that outlived the state: what is wanted is set again, what is not goes.
        (desired(vip(1)), in_force(), (vip(1).id, vip(2).id), [RemoveVip(vip(2).id), SetVip(vip(1))]),
    ],
)
def test_differences_become_changes(
    wanted: DesiredState, actual: State, found: tuple[str, ...], expected: list[Change]
) -> None:
    assert list(plan(wanted, actual, found).changes) == expected


ONE, TWO, THREE = (f"203.0.113.{number}" for number in (1, 2, 3))


def held_by(changes: tuple[Change, ...], vips: dict[str, Vip]) -> dict[str, Vip]:
    """What is in force after changes, if no two VIPs ever meet on an address and port."""
    held = dict(vips)
    for change in changes:
        if isinstance(change, RemoveVip):
            del held[change.id]
        elif isinstance(change, SetVip):
            held[change.vip.id] = change.vip
        places = [(a, each.protocol, each.port) for each in held.values() for a in each.addresses]
        assert len(places) == len(set(places)), change
    return held


@pytest.mark.parametrize(
    ("before", "after", "removed"),
    [
        ([(ONE,), (TWO,)], [(TWO,), (ONE,)], 1),  # an exchange: nobody can be first
        ([(ONE,), (TWO,), (THREE,)], [(TWO,), (THREE,), (ONE,)], 1),
        ([(ONE,), (TWO,)], [(TWO,), (THREE,)], 0),  # a row: the second one first
        ([(ONE, TWO), (THREE,)], [(ONE,), (TWO, THREE)], 0),
        ([(ONE, TWO), (THREE,)], [(TWO, THREE), (ONE,)], 1),
    ],
)
def test_no_two_vips_have_an_address_and_port_even_between_changes(
    before: list[tuple[str, ...]], after: list[tuple[str, ...]], removed: int
) -> None:
    then = in_force(*(vip(n + 1, addresses=addresses) for n, addresses in enumerate(before)))
    now = [vip(n + 1, addresses=addresses) for n, addresses in enumerate(after)]
    for wanted in (now, now[::-1]):
        changes = plan(desired(*wanted), then).changes
        assert held_by(changes, dict(then.vips)) == {each.id: each for each in now}
        assert sum(isinstance(change, RemoveVip) for change in changes) == removed


def test_a_vip_that_is_draining_is_revived() -> None:
    actual = in_force().model_copy(update={"removing": {vip(1).id: vip(1)}})
    assert plan(desired(vip(1)), actual).changes == (SetVip(vip(1)),)


@pytest.mark.parametrize(
    ("second", "field", "text"),
    [
        (vip(2, addresses=("203.0.113.1",)), "addresses", "203.0.113.1:80/TCP is held by shop/web1"),
        (vip(2, addresses=("10.0.0.1",)), "addresses", "10.0.0.1 is a NAT source of this node"),
        (vip(1, port=443), "id", "appears twice"),
    ],
)
def test_a_vip_that_contradicts_is_refused_and_the_others_are_set(second: Vip, field: str, text: str) -> None:
    planned = plan(desired(vip(1), second, vip(3)), in_force())
    assert SetVip(vip(3)) in planned.changes
    assert SetVip(second) not in planned.changes
    error = planned.refused[second.id]
    assert (error.code, error.field) == ("conflict", field)
    assert text in error.message
    assert error.fix


def test_one_address_may_serve_several_ports_and_protocols() -> None:
    same = ("203.0.113.1",)
    wanted = desired(vip(1), vip(2, addresses=same, port=443), vip(3, addresses=same, protocol="UDP"))
    assert not plan(wanted, in_force()).refused


def test_weights_finer_than_the_maglev_table_are_warned_of() -> None:
    backends = tuple(
        Backend(id=f"b{weight}", address=ip_address("10.1.0.1"), port=80, weight=weight) for weight in (1.0, 1000.0)
    )
    coarse = Scheduler(type=SchedulerType.MAGLEV, table_size=251)
    assert "b1.0" in warnings(vip(1, backends=backends, scheduler=coarse))[0]
    assert "above 1001" in warnings(vip(1, backends=backends, scheduler=coarse))[0]
    assert warnings(vip(1, backends=backends, scheduler=Scheduler(type=SchedulerType.MAGLEV))) == ()
    assert warnings(vip(1, backends=backends, scheduler=Scheduler(type=SchedulerType.LSQ))) == ()


def test_state_is_remembered_whole_or_not_at_all(tmp_path: Any) -> None:
    path = tmp_path / "penstock.state"
    assert load(path) == State()
    state = in_force(vip(1)).model_copy(update={"removing": {vip(2).id: vip(2)}, "backend_names": {2**63: "web-0"}})
    keeper = Keeper()
    keeper.save(path, state)
    assert load(path) == state
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(path.read_bytes()[:100])
    assert load(path) == State()
    keeper.forget(path)
    keeper.forget(path)
    assert not path.exists()


def test_addresses_of_others_are_refused_but_for_those_in_force() -> None:
    occupied = {ip_address(f"203.0.113.{number}"): "a gateway of this node" for number in (1, 2)}
    planned = plan(desired(vip(1, drain_timeout=7), vip(2), vip(3)), in_force(vip(1)), (), Bounds(occupied))
    assert planned.changes == (SetVip(vip(1, drain_timeout=7)), SetVip(vip(3)))
    (error,) = planned.refused.values()
    assert (error.code, error.field) == ("conflict", "addresses")
    assert "203.0.113.2 is a gateway of this node" in error.message


def test_a_state_that_cannot_be_written_is_written_later(tmp_path: Any) -> None:
    path = tmp_path / "absent" / "penstock.state"
    (tmp_path / "absent").write_text("in the way")
    keeper = Keeper()
    keeper.save(path, in_force(vip(1)))
    assert str(path) in keeper.problem
    (tmp_path / "absent").unlink()
    keeper.again()
    assert keeper.problem == ""
    assert load(path) == in_force(vip(1))


@pytest.mark.parametrize("block", ["203.0.113.2", "203.0.113.2-203.0.113.3", "203.0.113.2/31", "2001:db8::/64"])
def test_addresses_of_no_pool_are_refused_but_for_those_in_force(block: str, tmp_path: Path) -> None:
    file = tmp_path / "vips.json"
    file.write_text(json.dumps({"version": 1, "blocks": [block], "later": 1}))
    wanted = desired(vip(1, drain_timeout=7), vip(2), vip(4), vip(6, addresses=("2001:db8::6",)))
    planned = plan(wanted, in_force(vip(1)), (), Bounds(allowed=allowed.load(file)))
    allowed_now = {vip(6).id} if ":" in block else {vip(2).id}
    assert planned.refused.keys() == {vip(2).id, vip(4).id, vip(6).id} - allowed_now
    error = planned.refused[vip(4).id]
    assert (error.code, error.field) == ("invalid", "addresses")
    assert "203.0.113.4 is in no AddressPool" in error.message


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b'{"version": 2, "blocks": []}', b'{"version": 1, "blocks": ["x"]}']
)
def test_a_file_that_says_nothing_bounds_nothing(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "vips.json"
    if content is not None:
        file.write_bytes(content)
    assert allowed.load(file) is None
    assert allowed.load(None) is None


def test_without_pools_nothing_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "vips.json"
    file.write_text('{"version": 1, "blocks": []}')
    assert plan(desired(vip(1)), in_force(), (), Bounds(allowed=allowed.load(file))).refused


def test_only_addresses_of_vips_are_announced() -> None:
    gateway, own, drains, refused = "203.0.113.254", "203.0.113.1", "203.0.113.2", "203.0.113.3"
    actual = in_force(vip(1)).model_copy(update={"removing": {vip(2).id: vip(2)}})
    wanted = desired(
        vip(1), vip(3), announcement={"addresses": (gateway, own, drains, refused), "interfaces": ("eth0",)}
    )
    allowed, errors = announceable(wanted, actual)
    assert allowed == Announcement(addresses=(own, drains), interfaces=("eth0",))
    (error,) = errors
    assert (error.code, error.field) == ("invalid", "announcement.addresses.0")
    assert gateway in error.message
