"""VIPs that ask for addresses of one another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_operator.plan.allocation import assign
from penstock_operator.plan.ledger import Claim

from tests.support.plan_builders import addresses, pool, vip, world

TEN, ELEVEN, TWELVE = "203.0.113.10", "203.0.113.11", "203.0.113.12"


def moving(name: str, held: str, wanted: str, *, age: int = 60, generation: int = 2, seen: int = 1, **more: Any) -> Any:
    """A VIP that holds one address and asks for another."""
    return vip(name, age=age, held=[held], addresses=[wanted], generation=generation, seen=seen, **more)


def settle(vips: list[Any], order: list[int], **options: Any) -> dict[str, list[str]]:
    """Let an operator look at VIPs in an order, again and again, as its queue would; returns what each holds."""
    current = {each.metadata.name: each for each in vips}
    found = world(*vips, **options)
    for _ in range(len(vips) + 1):
        for index in order:
            each = current[vips[index].metadata.name]
            given = assign(each, found).addresses
            status = each.status.model_copy(
                update={"addresses": given, "observed_generation": each.metadata.generation}
            )
            current[each.metadata.name] = each.model_copy(update={"status": status})
            found.ledger.put(Claim.of(current[each.metadata.name]))
    return {name: [str(a) for a in each.status.addresses] for name, each in current.items()}


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]])
@pytest.mark.parametrize("seen", [1, 2], ids=["just edited", "refused before"])
class TestExchange:
    def test_two_vips_exchange_their_addresses(self, order: list[int], seen: int) -> None:
        vips = [
            moving("a", TEN, ELEVEN, age=9, seen=seen),
            moving("b", ELEVEN, TEN, seen=seen),
            vip("c", held=[TWELVE]),
        ]
        assert settle(vips, order) == {"a": [ELEVEN], "b": [TEN], "c": [TWELVE]}

    def test_three_vips_move_on_by_one(self, order: list[int], seen: int) -> None:
        vips = [
            moving("a", TEN, ELEVEN, age=9, seen=seen),
            moving("b", ELEVEN, TWELVE, seen=seen),
            moving("c", TWELVE, TEN, age=99, seen=seen),
        ]
        assert settle(vips, order) == {"a": [ELEVEN], "b": [TWELVE], "c": [TEN]}

    def test_a_row_moves_up_when_its_end_is_free(self, order: list[int], seen: int) -> None:
        vips = [moving("a", TEN, ELEVEN, age=9, seen=seen), moving("b", ELEVEN, TWELVE, seen=seen)]
        assert settle(vips, [n for n in order if n < 2]) == {"a": [ELEVEN], "b": [TWELVE]}

    def test_nobody_moves_when_the_last_cannot(self, order: list[int], seen: int) -> None:
        vips = [
            moving("a", TEN, ELEVEN, age=9, seen=seen),
            moving("b", ELEVEN, TWELVE, seen=seen),
            vip("c", held=[TWELVE]),
        ]
        assert settle(vips, order) == {"a": [TEN], "b": [ELEVEN], "c": [TWELVE]}

    def test_nobody_moves_when_one_asks_for_what_it_may_not_have(self, order: list[int], seen: int) -> None:
        vips = [moving("a", TEN, ELEVEN, age=9, seen=seen), moving("b", ELEVEN, "198.51.100.1", seen=seen)]
        assert settle([*vips, vip("c", held=[TWELVE])], order) == {"a": [TEN], "b": [ELEVEN], "c": [TWELVE]}

    def test_a_paused_vip_does_not_move(self, order: list[int], seen: int) -> None:
        paused = moving("b", ELEVEN, TEN, seen=seen, annotations={"penstock.dev/paused": "true"})
        found = world(mine := moving("a", TEN, ELEVEN, seen=seen), paused, vip("c", held=[TWELVE]))
        assert addresses(assign(mine, found)) == [TEN]
        assert order


@given(
    wishes=st.lists(st.integers(10, 14), min_size=2, max_size=5),
    refused=st.lists(st.booleans(), min_size=5, max_size=5),
    order=st.permutations(range(5)),
)
def test_whoever_wants_what_no_address_ends_with_two_holders(
    wishes: list[int], refused: list[bool], order: list[int]
) -> None:
    vips = [
        moving(f"vip-{n}", f"203.0.113.{10 + n}", f"203.0.113.{wish}", age=50 - n, seen=2 if refused[n] else 1)
        for n, wish in enumerate(wishes)
    ]
    held = settle(vips, [n for n in order if n < len(vips)], pools=[pool("203.0.113.8/29")])
    given = [address for addresses in held.values() for address in addresses]
    assert len(given) == len(set(given)) == len(vips)
