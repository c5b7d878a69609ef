"""A real API server with everything that `kubectl apply -f crds/manifests` brings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster import ControlPlane
from tests.support.rest import Rest

MANIFESTS = Path(__file__).resolve().parents[2] / "crds" / "manifests"


@pytest.fixture(scope="session")
def installed(apiserver: ControlPlane) -> ControlPlane:
    apiserver.kubectl("create", "namespace", "penstock-system", check=False)
    apiserver.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(MANIFESTS))
    kinds = ("crd", "-l", "app.kubernetes.io/part-of=penstock")
    apiserver.kubectl("wait", "--for=condition=Established", "--timeout=30s", *kinds)
    return apiserver


@pytest.fixture(scope="session")
def rest(installed: ControlPlane) -> Iterator[Rest]:
    with Rest(installed.kubeconfig) as client:
        yield client
