"""YAML that anybody may have written: the same values as before, bounds, and the line of every error."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock_api import KindError, documents
from penstock_api.files import read_file, read_files
from penstock_api.reading import read_yaml

from tests.support.bad_objects import VIP


def values(text: str) -> list[Any]:
    return [json.loads(json.dumps(each.value)) for each in documents.load(text)]


def is_unambiguous(text: str) -> bool:
    """PyYAML writes `1e3` without quotes, for YAML 1.1 takes it for text; YAML 1.2, as kubectl has it, for a number."""
    return re.fullmatch(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+", text) is None


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"])).filter(is_unambiguous)
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30).filter(is_unambiguous)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(value=JSON)
def test_what_is_written_is_read(value: Any) -> None:
    expected = [] if value is None else [value]
    assert values(yaml.safe_dump(value, allow_unicode=True)) == expected
    assert values(json.dumps(value, ensure_ascii=False)) == expected


@settings(max_examples=500, deadline=None)
@given(text=st.text(alphabet="ab01:-?[]{},&*!|>'\"#%@ \n\t<.~", max_size=60) | st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for error in read_yaml(text).errors:
        assert isinstance(error, KindError)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2026-01-01", {"a": "2026-01-01"}),
        ("a: 10:30", {"a": "10:30"}),
        ("[0x1f, 017, 1_000, -5, +5, 0b11, 0]", [31, 15, 1000, -5, 5, 3, 0]),
        ("a: yes\nb: Off\nc: ~\nd:\ne: 1.5\nf: .5", {"a": True, "b": False, "c": None, "d": None, "e": 1.5, "f": 0.5}),
        ("1: a\ntrue: b\nnull: c", {"1": "a", "true": "b", "null": "c"}),
        ("a: !!str 5\nb: !!int '5'", {"a": "5", "b": 5}),
        ("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}", {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}}),
        ("- &x {a: 1}\n- &y {a: 2, b: 2}\n- {<<: [*x, *y]}", [{"a": 1}, {"a": 2, "b": 2}, {"a": 1, "b": 2}]),
        ("a: '<<'\n'<<': 1", {"a": "<<", "<<": 1}),
    ],
)  # fmt: skip
def test_values_are_those_of_kubernetes(text: str, value: Any) -> None:
    assert values(text) == [value]


def chain(levels: int, width: int) -> str:
    lines = [f"a0: &a0 [{', '.join('x' * width)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


HOSTILE = {
    "deep list": ("[" * 100_000, "nested more than 64 levels deep|maximum nesting depth", 1),
    "deep map": ("{a: " * 100_000, "nested more than 64 levels deep|maximum nesting depth", 1),
    "deep block": ("\n".join(" " * n + "a:" for n in range(1000)), "nested more than 64 levels deep", 65),
    "deep by aliases": (chain(100, 1), "nested more than 64 levels deep", 64),
    "alias bomb": (chain(10, 10), "has more than 500000 values", 6),
    "many aliases": ("a: &a [" + "x, " * 999 + "x]\nb: [" + "*a, " * 600 + "*a]", "has more than 500000 values", 2),
    "recursive alias": ("a: &a [*a]", "contains itself", 1),
    "recursive by a map": ("\na: &a\n  b: *a", "contains itself", 3),
    "unknown alias": ("a: *nobody", "not YAML|no anchor", 1),
    "binary": ("\na: !!binary aGVsbG8=", "!!binary has no meaning in JSON", 2),
    "set": ("a: !!set {b, c}", "!!set has no meaning", 1),
    "timestamp": ("a: !!timestamp 2026-01-01", "!!timestamp has no meaning", 1),
    "python": ("a: !!python/object/apply:os.system [ls]", "python/object/apply:os.system has no meaning", 1),
    "own tag": ("a: !mine x", "tag !mine has no meaning", 1),
    "huge integer": ("a: " + "9" * 100_000, "is no int", 1),
    "huge hexadecimal": ("a: 0x" + "f" * 100_000, "is no int", 1),
    "infinite": ("a: .inf", "is no float that JSON has", 1),
    "not a number": ("a: .nan", "is no float that JSON has", 1),
    "huge float": ("a: 1.0e+999", "is no float that JSON has", 1),
    "bad integer": ("a: !!int x", "is no int", 1),
    "bad bool": ("a: !!bool x", "is no bool", 1),
    "key twice": ("a: 1\nb: 2\na: 3", "key 'a' appears twice", 3),
    "key that is a map": ("? {a: 1}\n: 2", "cannot be a key", 1),
    "merge of text": ("a: 1\n<<: text", "merges maps only", 2),
    "syntax": ("a: 1\nb: [", "not YAML", 2),
    "control character": ("a: \x07", "not YAML", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_documents_are_refused_with_their_line(name: str) -> None:
    text, words, line = HOSTILE[name]
    (error,) = read_yaml(text).errors
    assert re.search(words, str(error)), str(error)
    assert len(str(error)) < 500
    assert error.line in (line, line + 1)  # of the end of the file, where the problem is that something is missing


def test_many_keys_take_time_in_proportion() -> None:
    def seconds(count: int) -> float:
        text = "\n".join(f"key{n}: x" for n in range(count))
        began = time.process_time()
        assert len(values(text)[0]) == count
        return time.process_time() - began

    assert seconds(60_000) < 60 * max(seconds(6_000), 0.05)  # ten times as many; quadratic would be a hundred


def test_many_unknown_fields_are_answered_soon_and_briefly() -> None:
    spec = dict.fromkeys((f"field{n}" for n in range(60_000)), 1)
    (error,) = read_yaml(json.dumps({**VIP, "spec": {**VIP["spec"], **spec}})).errors
    assert "59980 more fields are wrong" in str(error)
    assert len(str(error)) < 10_000


def test_every_error_has_file_and_line(tmp_path: Any) -> None:
    file = tmp_path / "vips.yaml"
    good = yaml.safe_dump(VIP)
    file.write_text(
        f"{good}---\napiVersion: penstock.dev/v1alpha1\nkind: LoadBalancerVIP\nmetadata:\n  name: bad\nspec:\n"
        "  ports:\n  - port: 80\n  - port: 99999\n  nonsense: 1\n  backends: {service: {name: x}}\n---\nkind: [\n"
    )
    reading = read_file(file)
    assert [each.where for each in reading.objects] == [f"{file}:1"]
    first = good.count("\n") + 1
    fields, syntax = reading.problems
    assert f"{file}:{first + 8}: LoadBalancerVIP bad: spec.ports[1].port: must be at most 65535" in fields.text
    assert f"{file}:{first + 9}: LoadBalancerVIP bad: spec.nonsense: unknown field" in fields.text
    assert fields.identity == ("LoadBalancerVIP", "default/bad")
    assert syntax.text.startswith(f"{file}:{first + 13}: not YAML")


def test_what_is_no_text_file_is_named(tmp_path: Any) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "directory.yaml").mkdir()
    (tmp_path / "large.yaml").write_bytes(b"#" * (documents.LARGEST_BYTES + 1))
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    (tmp_path / ".#lock.yaml").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "good.json").write_text(json.dumps(VIP))
    (tmp_path / "marked.yml").write_bytes(b"\xef\xbb\xbf# nothing")
    reading = read_files(tmp_path)
    assert len(reading.objects) == 1
    problems = {each.file.rsplit("/")[-1]: each.text for each in reading.problems}
    assert problems.keys() == {"binary.yaml", "directory.yaml", "large.yaml", "dangling.yaml", "fifo.yaml"}
    for name, text in problems.items():
        assert text.startswith(f"{tmp_path}/{name}: "), text


LIST = """\
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: penstock.dev/v1alpha1
  kind: AddressPool
  metadata: {name: public, creationTimestamp: null, managedFields: []}
  spec: {addresses: [203.0.113.0/24]}
- apiVersion: v1
  kind: Service
  metadata: {name: other}
- apiVersion: penstock.dev/v1alpha1
  kind: AddressPool
  metadata: {name: wrong}
  spec: {}
"""


def test_lists_are_their_items() -> None:
    read = read_yaml(LIST, foreign="skip")
    assert [(each.obj.key, each.line) for each in read.objects] == [("public", 5)]
    assert [(error.line, "wrong" in str(error)) for error in read.errors] == [(15, True)]


def test_a_typed_list_gives_its_items_their_kind() -> None:
    item = {key: value for key, value in VIP.items() if key not in ("apiVersion", "kind")}
    text = json.dumps({"apiVersion": "penstock.dev/v1alpha1", "kind": "LoadBalancerVIPList", "items": [item]})
    assert [each.obj.info.kind for each in read_yaml(text).objects] == ["LoadBalancerVIP"]


@pytest.mark.parametrize("items", [None, "x", {"a": 1}])
def test_a_list_without_items_is_named(items: Any) -> None:
    (error,) = read_yaml(json.dumps({"apiVersion": "v1", "kind": "List", "items": items})).errors
    assert "List: items: must be a list" in str(error)


NULLS = """\
apiVersion: penstock.dev/v1alpha1
kind: LoadBalancerVIP
metadata:
  name: web
  annotations:
  labels: null
  creationTimestamp: null
  namespace: null
spec:
  ports: [{port: 80, name: null, targetPort: null}]
  backends: {service: {name: web}, endpoints: null}
  policyName: null
  addresses:
  healthCheck: null
status:
"""


def test_nulls_are_absent() -> None:
    (found,) = read_yaml(NULLS).objects
    assert found.obj == read_yaml(
        "apiVersion: penstock.dev/v1alpha1\nkind: LoadBalancerVIP\nmetadata: {name: web}\n"
        "spec: {ports: [{port: 80}], backends: {service: {name: web}}}"
    ).objects[0].obj  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("addresses: [null]", r"spec\.addresses\[0\]"),
        ("nonsense: null", r"spec\.nonsense: unknown field"),
        ("ports: null", r"spec\.ports: is required"),
    ],
)
def test_nulls_are_errors_where_the_api_server_refuses_them(change: str, words: str) -> None:
    text = "apiVersion: penstock.dev/v1alpha1\nkind: LoadBalancerVIP\nmetadata: {name: web}\nspec:\n"
    text += "  backends: {service: {name: web}}\n" + ("" if "ports" in change else "  ports: [{port: 80}]\n")
    (error,) = read_yaml(f"{text}  {change}\n").errors
    assert re.search(words, str(error)), str(error)
