"""Models: trained policies as files of arrays, read with suspicion and evaluated with numpy.

Computation only, and reading of one file. Nothing here trains, and nothing here trusts what a file contains.
"""

from __future__ import annotations

from penstock_agent.models.archive import LARGEST_FILE, ModelError
from penstock_agent.models.files import Model, load, read
from penstock_agent.models.metadata import Card, Document, Head, Metadata, Result

__all__ = [
    "LARGEST_FILE",
    "Card",
    "Document",
    "Head",
    "Metadata",
    "Model",
    "ModelError",
    "Result",
    "load",
    "read",
]
