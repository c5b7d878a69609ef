"""Sizes of flow tables that follow from memory, and what options may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_embedded import sizing
from penstock_embedded.settings import Settings
from penstock_node.memory import Memory
from penstock_operator.plan import pods
from penstock_vpp.settings import PodSettings
from pydantic import ValidationError

MIB = 2**20
GIB = 2**30
PLENTY = 2**50

amounts = st.integers(0, 2**45)
limits = st.none() | amounts


@pytest.mark.parametrize(
    ("gibibytes", "flows"),
    [
        *((0.25, 65_536), (2, 65_536), (4, 65_536), (8, 131_072), (16, 262_144), (32, 524_288), (64, 1_048_576)),
        *((12, 131_072), (24, 262_144), (48, 524_288), (96, 1_048_576), (4096, 1_048_576)),
    ],
)
@pytest.mark.parametrize("reported", [1.0, 0.985, 0.97, 0.95])
def test_a_machine_sold_with_so_much_memory_holds_so_many_flows(gibibytes: float, flows: int, reported: float) -> None:
    """Kernels report a few percent less than the hardware has, and each release another amount."""
    assert sizing.automatic_size(Memory(int(gibibytes * GIB * reported)), PLENTY) == flows


@pytest.mark.parametrize(
    ("limit", "flows"), [(64, 65_536), (256, 131_072), (512, 262_144), (1024, 524_288), (1536, 1_048_576)]
)
def test_a_limit_of_the_container_counts_where_it_is_lower(limit: int, flows: int) -> None:
    assert sizing.automatic_size(Memory(256 * GIB, limit * MIB), PLENTY) == flows
    assert sizing.automatic_size(Memory(8 * GIB, limit * MIB), PLENTY) == min(flows, 131_072)


def test_the_arena_fits_into_the_shared_memory_of_a_container() -> None:
    assert sizing.automatic_size(Memory(256 * GIB), 64 * MIB) == 65_536


@given(amounts, limits, amounts)
def test_every_size_is_a_power_of_two_within_bounds(machine: int, limit: int | None, shared: int) -> None:
    flows = sizing.automatic_size(Memory(machine, limit), shared)
    assert sizing.SMALLEST <= flows <= sizing.LARGEST
    assert flows.bit_count() == 1


@given(amounts, limits, amounts, amounts)
def test_more_memory_never_makes_a_table_smaller(machine: int, limit: int | None, shared: int, more: int) -> None:
    flows = sizing.automatic_size(Memory(machine, limit), shared)
    assert sizing.automatic_size(Memory(machine + more, limit), shared) >= flows
    assert sizing.automatic_size(Memory(machine, None if limit is None else limit + more), shared) >= flows
    assert sizing.automatic_size(Memory(machine, limit), shared + more) >= flows


@given(amounts, limits, amounts)
def test_no_share_is_exceeded_by_more_than_rounding(machine: int, limit: int | None, shared: int) -> None:
    flows = sizing.automatic_size(Memory(machine, limit), shared)
    size = flows * sizing.BYTES_PER_FLOW * 7 // 8
    if flows > sizing.SMALLEST:
        assert size <= machine // 128
        assert limit is None or size <= limit // 3
        assert size <= shared // 2


@pytest.mark.parametrize("limit", [pods.DATA_PLANE_MEBIBYTES, 2048])
def test_the_limits_that_the_operator_gives_bound_no_table(limit: int) -> None:
    """So the size of a pod's table depends on its node alone."""
    whole = limit + pods.LARGEST_AUTOMATIC_TABLE * pods.BYTES_PER_FLOW // MIB
    assert sizing.automatic_size(Memory(256 * GIB, whole * MIB), PLENTY) == sizing.LARGEST


def test_what_is_given_is_taken_as_it_is(tmp_path: Path) -> None:
    assert sizing.size_in_force(4096, tmp_path / "missing") == 4096


def test_this_machine_has_the_same_size_each_time(tmp_path: Path) -> None:
    first = sizing.size_in_force(None, tmp_path)
    ballast = bytearray(64 * MIB)
    assert sizing.size_in_force(None, tmp_path) == first
    assert len(ballast) == 64 * MIB


@pytest.mark.parametrize("model", [Settings, PodSettings])
@pytest.mark.parametrize(
    ("given", "expected"),
    [("auto", None), (None, None), (1024, 1024), ("1024", 1024), (4_194_304, 4_194_304), ("4194304", 4_194_304)],
)
def test_an_option_is_auto_or_a_number(model: type[Settings | PodSettings], given: Any, expected: int | None) -> None:
    settings = model.model_validate({"flow_table_size": given})
    assert settings.flow_table_size == expected
    assert model.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize("model", [Settings, PodSettings])
@pytest.mark.parametrize("given", ["many", "", "Auto", "1023", 1023, 4_194_305, -1, "1e6", 65536.5, [65536], "65 536"])
def test_an_option_that_is_neither_names_value_and_remedy(model: type[Settings | PodSettings], given: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        model.model_validate({"flow_table_size": given})
    (error,) = raised.value.errors()
    assert error["loc"] == ("flow_table_size",)
    assert error["msg"].endswith(
        f"{given} is no size; give --flow-table-size auto or a number of flows from 1024 to 4194304"
    )


def test_without_the_option_the_size_is_automatic() -> None:
    assert Settings().flow_table_size is None
    assert PodSettings().flow_table_size is None
