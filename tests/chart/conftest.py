"""helm and kubeconform, with schemas taken from the API server itself: nothing is downloaded."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import ControlPlane
from e2e.cluster.binaries import program
from tests.support.rest import Rest

CHART = Path(__file__).resolve().parents[2] / "charts" / "penstock"
NAMESPACE = "penstock-system"

Helm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Run helm; the caller looks at the return code."""
    binary = program("helm")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(binary), *arguments, "--namespace", NAMESPACE]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture(scope="session")
def schemas(apiserver: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of JSON schemas, one per kind, as kubeconform finds them: <kind>_<version>.json."""
    folder = tmp_path_factory.mktemp("schemas")
    with Rest(apiserver.kubeconfig) as rest:
        for document in _openapi(rest):
            _write_schemas(folder, document)
    return folder


def _openapi(rest: Rest) -> list[dict[str, Any]]:
    paths = rest.read("/openapi/v3")["paths"]
    return [rest.read(entry["serverRelativeURL"]) for path, entry in paths.items() if path.endswith("/v1")]


def _write_schemas(folder: Path, document: dict[str, Any]) -> None:
    components = document.get("components", {}).get("schemas", {})
    for schema in components.values():
        # As strict as kubectl: a field that the schema doesn't name is an error.
        if schema.get("properties") and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
    for name, schema in components.items():
        for kind in schema.get("x-kubernetes-group-version-kind", ()):
            rooted = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": components}}
            (folder / f"{kind['kind'].lower()}_{kind['version']}.json").write_text(json.dumps(rooted))
