"""Scenario files: read as strictly as files of kinds, by the same reader, and written."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from penstock_api import documents
from penstock_api.documents import Located
from penstock_api.errors import KindError, MalformedDocumentError
from penstock_api.files import UnreadableFileError, text_of
from penstock_api.reading import Source, parse

from penstock_rl.scenarios.errors import ScenarioError, TooLargeError
from penstock_rl.scenarios.expansion import expand
from penstock_rl.scenarios.model import Scenario

NAMED = Path(__file__).parent / "named"
LARGEST_BYTES = 1024 * 1024


def load(path: Path) -> Scenario:
    """Read a scenario file; raises ScenarioError with a line of text for each thing that is wrong.

    A trace that it names is read, too, and found by its path from the file's folder.
    """
    try:
        document = _document(text_of(path, LARGEST_BYTES))
        scenario = parse(Scenario, document.value, source=Source.FILE, line=document.line)
    except UnreadableFileError as error:
        raise ScenarioError(str(error)) from error
    except KindError as error:
        raise ScenarioError(error.located(str(path))) from error
    found = _in_folder(scenario, path.absolute().parent)
    _try_out(found, path, document)
    return found


def dump(scenario: Scenario) -> str:
    """Return a scenario as the text of a file, defaults left out."""
    content = scenario.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True)
    return yaml.safe_dump(_shortened(content), sort_keys=False, allow_unicode=True, width=116, default_flow_style=None)


@cache
def named() -> Mapping[str, Scenario]:
    """Return the scenarios that come with Penstock, by name."""
    found = (load(path) for path in sorted(NAMED.glob("*.yaml")))
    return {scenario.name: scenario for scenario in found}


def _shortened(value: Any) -> Any:
    """Write whole numbers as such."""
    if isinstance(value, dict):
        return {key: _shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _document(text: str) -> Located:
    found = list(documents.load(text))
    if len(found) != 1:
        raise MalformedDocumentError(f"has {len(found)} documents, a scenario is one; split the file")
    if not isinstance(found[0].value, dict):
        raise MalformedDocumentError("must be a map with the fields of a scenario; write name, servers, arrivals")
    return found[0]


def _in_folder(scenario: Scenario, folder: Path) -> Scenario:
    """Return the scenario with the whole path of its trace."""
    trace = scenario.arrivals.trace
    if trace is None:
        return scenario
    whole = trace.model_copy(update={"file": str(folder / trace.file)})
    arrivals = scenario.arrivals.model_copy(update={"trace": whole})
    return scenario.model_copy(update={"arrivals": arrivals})


def _try_out(scenario: Scenario, path: Path, document: Located) -> None:
    """Raise what would be wrong when it is run."""
    try:
        expand(scenario, seed=0)
    except TooLargeError as error:
        line = documents.line_of(document.value, error.path, document.line)
        raise ScenarioError(f"{path}:{line}: Scenario {scenario.name}: {error}") from error
