"""Damaged model files: bytes of the container, or members in one whose checksums and digest are right again."""

from __future__ import annotations

import io
import json
import random
import warnings
import zipfile

from penstock_agent.models import Metadata, ModelError
from penstock_agent.models.archive import DOCUMENT, unpack
from penstock_agent.models.files import digest
from pydantic import ValidationError

NUMBERS = (0, 1, -1, 2, 5, 255, 65535, 1e6, 1e7, 1e39, 0.5)
WORDS = ("bayes", "sed", "lsq", "", "../a", "fct/avg", "a" * 300, "continuous", "levels", "é\u0000")


def members_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED, twice: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a name that is there twice
        for name, content in members.items():
            for _ in range(2 if name == twice else 1):
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, compression)
    return buffer.getvalue()


def mutated(data: bytes, choose: random.Random) -> bytes:
    """Return the file with up to four changes of bytes, or of bytes in a member that is packed again.

    Half of the latter get the digest that belongs to them.
    """
    try:
        members = members_of(data) if choose.random() < 0.7 else {}
    except Exception:
        members = {}  # damaged before
    if not members:
        return _bytes_changed(data, choose)
    name = choose.choice(sorted(members))
    action = choose.random()
    if action < 0.1:
        del members[name]
    elif action < 0.2:
        members[choose.choice(("a.npy", "mean.npy", "model.json", "x/y.npy"))] = members[name]
    elif name.endswith(".json") and action < 0.7:
        members[name] = _text_changed(members[name].decode(errors="replace"), choose).encode()
    else:
        members[name] = _bytes_changed(members[name], choose)
    return packed(signed(members) if choose.random() < 0.5 else members)


def signed(members: dict[str, bytes]) -> dict[str, bytes]:
    """Return the members with the digest that belongs to them, where there is one."""
    try:
        text, arrays = unpack(packed(members))
        document = json.loads(text)
        document["arrays"] = digest(Metadata.model_validate(document["model"]), arrays)
    except (ModelError, ValidationError, ValueError, KeyError, TypeError):
        return members
    return members | {DOCUMENT: json.dumps(document).encode()}


def _bytes_changed(data: bytes, choose: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(choose.randint(1, 4)):
        at = choose.randrange(len(changed) + 1)
        action = choose.randrange(4)
        if action == 0:
            del changed[at : at + choose.randint(1, 40)]
        elif action == 1:
            changed[at:at] = choose.randbytes(choose.randint(1, 8))
        else:
            changed[at : at + 1] = bytes([choose.choice((0, 1, 0x7F, 0x80, 0xFF, choose.randrange(256)))])
    return bytes(changed)


def _text_changed(text: str, choose: random.Random) -> str:
    """Replace a token of JSON by a number, a word, or something of another type."""
    parts = text.split('"')
    at = choose.randrange(len(parts))
    new = choose.choice((str(choose.choice(NUMBERS)), choose.choice(WORDS), "null", "[]", "{}", "true", "NaN"))
    if at % 2:
        parts[at] = new
    else:
        parts[at] = ": " + new + ", "
    return '"'.join(parts)
