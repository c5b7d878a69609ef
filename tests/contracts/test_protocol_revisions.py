"""Agent and data plane of neighbouring releases understand each other: requests are lowered, and old ones stay valid.

A change of what requests may hold fails here. For it, raise PROTOCOL_REVISION of penstock_embedded.messages, add a
step to penstock_agent.dataplane.revisions, and write the new schema to tests/contracts/protocol. Schemas of revisions
that were released do not change.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_agent.dataplane.revisions import lowered
from penstock_embedded.messages import PROTOCOL_REVISION, Backend, BackendState, DesiredState, Refusal, Vip

from tests.support import request_schemas

REVISIONS = range(1, PROTOCOL_REVISION + 1)

backends = st.builds(
    Backend,
    id=st.integers(0, 10**6).map("web-{}".format),
    address=st.just("10.0.0.1"),
    port=st.integers(1, 65535),
    state=st.sampled_from(BackendState),
)
vips = st.builds(
    Vip,
    id=st.integers(1, 2**64 - 1).map("{:016x}".format),
    key=st.just("shop/web"),
    addresses=st.just(("203.0.113.10",)),
    port=st.integers(1, 65535),
    when_no_backends=st.sampled_from(Refusal),
    when_no_flow=st.sampled_from(Refusal),
    backends=st.lists(backends, max_size=5, unique_by=lambda backend: backend.id).map(tuple),
)
states = st.builds(
    DesiredState, generation=st.just(1), scheduler_key=st.just("0" * 32), vips=st.lists(vips, max_size=3).map(tuple)
)


def as_json(state: DesiredState) -> dict[str, Any]:
    return state.model_dump(mode="json")


def test_the_schema_of_requests_is_that_of_the_current_revision() -> None:
    assert request_schemas.current() == request_schemas.of(PROTOCOL_REVISION), __doc__


@pytest.mark.parametrize("revision", REVISIONS)
@given(state=states)
def test_a_lowered_request_has_nothing_that_an_older_data_plane_refuses(revision: int, state: DesiredState) -> None:
    request = lowered(as_json(state), revision)
    assert list(request_schemas.unknown(request, request_schemas.of(revision))) == []


@given(state=states)
def test_a_lowered_request_differs_in_nothing_else(state: DesiredState) -> None:
    assert lowered(as_json(state), PROTOCOL_REVISION) == as_json(state)
    for before, after in zip(state.vips, DesiredState.model_validate(lowered(as_json(state), 1)).vips, strict=True):
        assert after.when_no_backends is after.when_no_flow is Refusal.REJECT
        for old, new in zip(before.backends, after.backends, strict=True):
            drains = old.state in (BackendState.UNREADY, BackendState.DRAINING)
            assert new.state is (BackendState.DRAINING if drains else old.state)
            assert new.model_copy(update={"state": old.state}) == old


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_requests_of_an_older_agent_stay_valid(revision: int) -> None:
    older, newer = request_schemas.of(revision), request_schemas.of(PROTOCOL_REVISION)
    pairs = [(older, newer), *((each, newer["$defs"][name]) for name, each in older["$defs"].items())]
    for before, after in pairs:
        assert before.get("properties", {}).keys() <= after.get("properties", {}).keys()
        assert set(before.get("enum", ())) <= set(after.get("enum", ()))
        assert set(after.get("required", ())) <= set(before.get("required", ()))
