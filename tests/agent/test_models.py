"""Model files: what the loader reads, and that it refuses everything else with an error that says why."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock_agent.models import LARGEST_FILE, Card, Head, ModelError, load, read
from penstock_agent.policies import EVALUATED, learned
from penstock_rl.export import NetworkFile, export, write

from tests.support.model_mutator import members_of, mutated, packed
from tests.support.models import arrays, metadata, model_file, observation

DATA = model_file()
CARD = Card(name="a")


def document(data=DATA):
    return json.loads(members_of(data)["model.json"])


def changed(**members):
    """Return the file with members replaced, or without those that are None."""
    every = members_of(DATA) | {name.replace("__", "."): content for name, content in members.items()}
    return packed({name: content for name, content in every.items() if content is not None})


def with_document(**changes):
    plain = document()
    for key, value in changes.items():
        where = plain
        *path, last = key.split("__")
        for part in path:
            where = where[part]
        where[last] = value
    return changed(model__json=json.dumps(plain).encode())


def with_array(name, values, **written):
    content = io.BytesIO()
    np.lib.format.write_array(content, values, **written)
    every = members_of(DATA)
    every[f"{name}.npy"] = content.getvalue()
    return packed(every)


def test_a_model_is_read_as_it_was_exported():
    described = metadata()
    written = arrays(described)
    model = read(export(written, described, CARD))
    assert model.metadata == described
    assert model.card == CARD
    assert model.arrays.keys() == written.keys()
    assert all((model.arrays[name] == values).all() for name, values in written.items())


def test_the_same_model_gives_the_same_file():
    assert model_file() == DATA
    assert model_file(seed=1) != DATA


def test_a_file_has_its_card_beside_it(tmp_path):
    described = metadata(head=Head.LEVELS, use_base=False)
    digest = write(tmp_path / "m.npz", NetworkFile(described, arrays(described)), CARD)
    beside = json.loads((tmp_path / "m.card.json").read_text())
    assert beside["sha256"] == digest == load(tmp_path / "m.npz", sha256=digest.upper()).sha256
    assert beside["card"]["name"] == "a"


def test_another_file_than_the_digest_names_is_refused(tmp_path):
    (tmp_path / "m.npz").write_bytes(DATA)
    with pytest.raises(ModelError, match=r"m\.npz: file: has SHA-256 [0-9a-f]{64} instead of 0000"):
        load(tmp_path / "m.npz", sha256="0" * 64)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nothing\.npz: No such file"):
        load(tmp_path / "nothing.npz")


def test_a_large_file_is_not_read_further(tmp_path):
    (tmp_path / "m.npz").write_bytes(DATA + b"0" * LARGEST_FILE)
    with pytest.raises(ModelError, match="at most 1000000"):
        load(tmp_path / "m.npz")


def pickled():
    content = io.BytesIO()
    np.lib.format.write_array(content, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return content.getvalue()


def array_with_header(header, body=b"\0" * 20):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }   \n"

REFUSED = {
    "nothing": (b"", "not a readable .npz"),
    "no zip": (b"PK" * 100, "not a readable .npz"),
    "a truncated file": (DATA[:-30], "not a readable .npz"),
    "pickle": (changed(mean__npy=pickled()), r"array mean\.npy: is not a little-endian float32"),
    "code in a header": (
        changed(mean__npy=array_with_header(HEADER.replace(b"(5,)", b"__import__('os'),"))),
        r"array mean\.npy: is not a little-endian float32",
    ),
    "a header without end": (changed(mean__npy=b"\x93NUMPY\x01\x00\xff\xff{'descr'"), "not a little-endian float32"),
    "no array at all": (changed(mean__npy=b"text"), "not in numpy's format"),
    "another format of numpy": (with_array("mean", np.ones(5, np.float32), version=(2, 0)), "not in numpy's format"),
    "too few bytes": (changed(mean__npy=array_with_header(HEADER, b"\0" * 16)), "has 16 bytes instead of 20"),
    "a huge shape": (
        changed(mean__npy=array_with_header(HEADER.replace(b"(5,)", b"(999999, 999999, 999999)"))),
        "has 20 bytes instead of",
    ),
    "double precision": (with_array("mean", np.ones(5)), "not a little-endian float32"),
    "columns first": (with_array("std", np.asfortranarray(np.ones((2, 3), np.float32))), "not a little-endian float32"),
    "not a number": (with_array("mean", np.full(5, np.nan, np.float32)), "not finite"),
    "infinity": (with_array("mean", np.full(5, np.inf, np.float32)), "not finite"),
    "a large value": (with_array("mean", np.full(5, 1e7, np.float32)), r"array mean: has the value 1e\+07"),
    "no deviation": (with_array("std", np.zeros(5, np.float32)), "array std: has the value 0"),
    "a negative limit": (with_array("limits", -np.ones(2, np.float32)), "array limits: has the value -1"),
    "a large limit": (with_array("limits", np.full(2, 30, np.float32)), "array limits: has the value 30"),
    "another shape": (
        with_array("mean", np.ones(4, np.float32)),
        r"array mean: has the shape \(4,\) instead of \(5,\)",
    ),
    "another value": (with_array("mean", np.ones(5, np.float32)), "arrays: have the digest"),
    "an array too much": (with_array("extra", np.ones(5, np.float32)), "arrays: extra not part"),
    "an array too few": (changed(mean__npy=None), "arrays: mean missing"),
    "a name that is a path": (packed(members_of(DATA) | {"../../etc/passwd": b"a"}), "is not a name of an array"),
    "a folder": (packed(members_of(DATA) | {"folder/": b""}), "is not a name of an array"),
    "many members": (packed(members_of(DATA) | {f"a{i}.npy": b"" for i in range(64)}), "has 80 members"),
    "a member twice": (packed(members_of(DATA), twice="mean.npy"), "mean.npy: is there 2 times"),
    "a bomb": (packed(members_of(DATA) | {"a.npy": b"\0" * 2_000_000}), "unpacks to 2000000 bytes"),
    "many small bombs": (
        packed(members_of(DATA) | {f"a{i}.npy": b"\0" * 300_000 for i in range(5)}),
        "file: unpacks to 15",
    ),
    "bzip2": (packed(members_of(DATA), compression=zipfile.ZIP_BZIP2), "has compression 12"),
    "no document": (changed(model__json=None), "no member model.json"),
    "no JSON": (changed(model__json=b"{"), "is not JSON"),
    "deep JSON": (changed(model__json=b"[" * 100_000), "is not JSON"),
    "no object": (changed(model__json=b"1"), "format is 'None'"),
    "a newer format": (with_document(format=2), "format is '2'; this agent reads 1"),
    "a format that is true": (with_document(format=True), "format is 'True'"),
    "an unknown field": (with_document(model__pickle="x"), "model.pickle: Extra inputs are not permitted"),
    "a width too large": (with_document(model__hidden=100_000), "model.hidden: Input should be less than"),
    "a number as text": (with_document(model__hidden="8"), "model.hidden: Input should be a valid integer"),
    "a flag as a number": (with_document(model__memory=1), "model.memory: Input should be a valid boolean"),
    "an unknown scheduler": (with_document(model__scheduler="magic"), "model.scheduler"),
    "an unknown feature": (with_document(model__features=["a/b"] * 5), "'a/b' is not a feature"),
    "a feature twice": (with_document(model__features=["fct/avg"] * 5), "a name is there twice"),
    "features of another version": (with_document(model__features_version=99), "features_version is 99"),
    "another architecture": (with_document(model__memory=False), "arrays: memory.bias_hh"),
    "another anchor than exported": (with_document(model__anchor="sed"), "arrays: have the digest"),
    "a name with a path": (with_document(card__name="../a"), "card.name"),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_model_is_refused(data, message):
    with pytest.raises(ModelError, match=message):
        read(data)


def test_a_declared_size_that_is_a_lie_is_refused():
    # The directory says 10 bytes, the member has many.
    data = bytearray(packed(members_of(DATA) | {"a.npy": b"\0" * 900_000}))
    at = data.rindex(b"a.npy") - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    with pytest.raises(ModelError, match=r"not a readable \.npz"):
        read(bytes(data))


def test_names_that_differ_between_directory_and_member_are_refused():
    data = DATA.replace(b"mean.npy", b"meen.npy", 1)
    with pytest.raises(ModelError, match=r"not a readable \.npz"):
        read(data)


@pytest.mark.parametrize("levels", [0, 65])
def test_levels_are_counted(levels):
    described = metadata(head=Head.LEVELS)
    with pytest.raises(ModelError, match="array levels: has the shape"):
        export(arrays(described, levels=levels), described, CARD)


def test_export_refuses_what_a_loader_would():
    described = metadata()
    with pytest.raises(ModelError, match="array mean: has the shape"):
        export(arrays(described) | {"mean": np.ones(3)}, described, CARD)
    with pytest.raises(ModelError, match="not finite"):
        export(arrays(described) | {"mean": np.full(5, np.nan)}, described, CARD)


@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_is_refused_or_usable(seed):
    data = mutated(DATA, random.Random(seed))
    try:
        model = read(data)
    except ModelError as error:
        assert str(error)
    else:
        decision, _ = learned.policy(model, EVALUATED).decide(observation(), None)
        assert decision.weights.shape == (6,)


@given(data=st.binary(max_size=2000))
def test_any_bytes_are_refused(data):
    with pytest.raises(ModelError):
        read(data)
