"""The container of a model: an uncompressed or deflated `.npz` of float32 arrays and one JSON text.

A file may come from anywhere, so nothing is read before its declared size is checked, no header is evaluated as
Python, and only one form of each thing is accepted: that which `penstock_rl.export` writes.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

LARGEST_FILE = 1_000_000
"""Bytes of a model's file, and of all of its members unpacked."""

MOST_MEMBERS = 64
DOCUMENT = "model.json"

Float32Array = NDArray[np.float32]

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+){0,3}\.npy")
# What numpy.lib.format writes for a little-endian float32 array; other forms are not read.
_HEADER = re.compile(
    rb"\{'descr': '<f4', 'fortran_order': False, 'shape': \((?P<shape>|\d{1,6},|\d{1,6}(?:, \d{1,6}){1,2})\), \} *\n"
)
_MAGIC = b"\x93NUMPY\x01\x00"
# What zipfile raises for damaged files; RuntimeError for encrypted members and unknown compression.
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, OverflowError, RuntimeError, ValueError)
_PLAIN = 0  # flags of a member that is neither encrypted nor of unknown length; bit 11 says that its name is UTF-8


class ModelError(ValueError):
    """A file that is no model this agent can use; the message names member, value and fix."""


def unpack(data: bytes) -> tuple[bytes, Mapping[str, Float32Array]]:
    """Return the JSON text and the arrays of a container, both unverified but for their form."""
    if len(data) > LARGEST_FILE:
        raise ModelError(f"file: has {len(data)} bytes or more; a model has at most {LARGEST_FILE}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {each.filename: _unpacked(archive, each) for each in _members(archive)}
    except ModelError:
        raise
    except _DAMAGED as error:
        raise ModelError(f"file: is not a readable .npz ({error}); export the model again") from error
    document = members.pop(DOCUMENT, None)
    if document is None:
        raise ModelError(f"file: has no member {DOCUMENT}; use a file that `penstock export` wrote")
    return document, {name.removesuffix(".npy"): _array(name, content) for name, content in members.items()}


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the members, after a look at everything that they declare."""
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise ModelError(f"file: has {len(members)} members; a model has at most {MOST_MEMBERS}")
    names = [each.filename for each in members]
    for each in members:
        _check_member(each, names.count(each.filename))
    if (size := sum(each.file_size for each in members)) > LARGEST_FILE:
        raise ModelError(f"file: unpacks to {size} bytes; a model has at most {LARGEST_FILE}")
    return members


def _check_member(member: zipfile.ZipInfo, count: int) -> None:
    name = member.filename
    # The name in the local header may differ from that of the directory; zipfile compares them when it opens one.
    if (name != DOCUMENT and not _NAME.fullmatch(name)) or member.orig_filename != name:
        raise ModelError(f"member {name[:80]!r}: is not a name of an array; export the model again")
    if count > 1:
        raise ModelError(f"member {name}: is there {count} times; export the model again")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelError(f"member {name}: has compression {member.compress_type}; use none or deflate")
    if member.flag_bits & ~0x800 != _PLAIN:
        raise ModelError(f"member {name}: has flags {member.flag_bits:#x}, as encrypted ones have; export it again")
    if member.file_size > LARGEST_FILE:
        raise ModelError(f"member {name}: unpacks to {member.file_size} bytes; at most {LARGEST_FILE} are read")


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Unpack a member, which yields no more than it declared: zipfile stops there and compares the checksum."""
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)
    if len(content) != member.file_size:
        raise ModelError(f"member {member.filename}: has {len(content)} bytes instead of {member.file_size}")
    return content


def _array(name: str, content: bytes) -> Float32Array:
    if content[:8] != _MAGIC or len(content) < 10:
        raise ModelError(f"array {name}: is not in numpy's format 1.0; export the model again")
    end = 10 + int.from_bytes(content[8:10], "little")
    header = _HEADER.fullmatch(content[10:end])
    if header is None:
        raise ModelError(f"array {name}: is not a little-endian float32 array of at most 3 axes; export it as one")
    shape = tuple(int(size) for size in header["shape"].replace(b" ", b"").split(b",") if size)
    # Numbers of Python: a product does not overflow.
    if (size := 4 * int(np.prod(np.array(shape, dtype=object), initial=1))) != len(content) - end:
        raise ModelError(f"array {name}: has {len(content) - end} bytes instead of {size} for the shape {shape}")
    values = np.frombuffer(content, dtype="<f4", offset=end).reshape(shape)
    if not np.isfinite(values).all():
        raise ModelError(f"array {name}: has values that are not finite numbers; train the model again")
    return values.astype(np.float32)
