"""The data plane's copy of the table of unusable addresses: it must not import the kinds."""

from __future__ import annotations

from pathlib import Path

from tools.generators.output import NOTICE, Files

_SOURCE = Path("crds/penstock_api/addresses.py")
_COPY = Path("vpp-plugin/embedded/penstock_embedded/addresses.py")


def render() -> Files:
    """Return the copy."""
    text = (Path(__file__).resolve().parents[2] / _SOURCE).read_text()
    return {_COPY: f"# {NOTICE.format(source=_SOURCE)}\n{text}"}
