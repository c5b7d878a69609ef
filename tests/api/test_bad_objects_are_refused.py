"""The API server and the file reader refuse the same objects, name the field and tell the fix."""

from __future__ import annotations

import pytest
import yaml
from penstock_api import InvalidObjectError, parse_yaml

from tests.support.bad_objects import BAD, GOOD, Bad
from tests.support.rest import Rest


def test_there_are_enough_cases_and_no_two_have_one_name() -> None:
    names = [bad.name for bad in BAD]
    assert len(names) >= 25
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", GOOD)
def test_good_objects_are_read_from_files(kind: str) -> None:
    assert parse_yaml(yaml.safe_dump(GOOD[kind]))


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_files(bad: Bad) -> None:
    with pytest.raises(InvalidObjectError) as caught:
        parse_yaml(yaml.safe_dump(bad.object))
    errors = caught.value.errors
    assert any(bad.field in error.path for error in errors), caught.value
    assert all(error.message and error.fix for error in errors), caught.value
    for words in (*bad.says, *bad.says_in_files):
        assert words in str(caught.value)


@pytest.mark.apiserver
@pytest.mark.parametrize("kind", GOOD)
def test_good_objects_are_accepted_by_the_api_server(kind: str, rest: Rest) -> None:
    answer = rest.create(GOOD[kind], dry_run=True)
    assert answer.status == 201, answer.message


@pytest.mark.apiserver
@pytest.mark.parametrize("bad", [bad for bad in BAD if bad.only != "files"], ids=lambda bad: bad.name)
def test_api_server(bad: Bad, rest: Rest) -> None:
    answer = rest.create(bad.object, dry_run=True)
    assert answer.status in (400, 422), answer.body
    assert bad.field in answer.message, answer.message
    for words in bad.says:
        assert words in answer.message, answer.message
