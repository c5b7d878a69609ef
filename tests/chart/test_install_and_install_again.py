"""helm install, uninstall and take-over against a real API server, as the chart's README says."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.cluster import ControlPlane, control_plane

CHART = str(Path(__file__).resolve().parents[2] / "charts" / "penstock")
POOL = """
apiVersion: penstock.dev/v1alpha1
kind: AddressPool
metadata: {name: public}
spec: {addresses: [203.0.113.0/24]}
"""

pytestmark = pytest.mark.apiserver

Helm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def empty() -> Iterator[ControlPlane]:
    """An API server that nothing was ever installed into."""
    with control_plane() as plane:
        plane.kubectl("create", "namespace", "penstock-system")
        yield plane


def test_kinds_and_objects_survive_and_are_taken_up_again(helm: Helm, empty: ControlPlane) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return helm(*arguments, "--kubeconfig", str(empty.kubeconfig))

    def succeed(*arguments: str) -> str:
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    notes = succeed("install", "penstock", CHART)
    assert "penstock init" in notes
    assert "pod-security.kubernetes.io/enforce=privileged" in notes
    empty.kubectl("apply", "-f", "-", stdin=POOL)

    succeed("uninstall", "penstock")
    assert "public" in empty.kubectl("get", "pool")
    assert "penstock" not in empty.kubectl("get", "clusterrole,validatingadmissionpolicy", "-o", "name")

    succeed("install", "penstock", CHART)
    succeed("uninstall", "penstock")

    refused = run("install", "other", CHART)
    assert refused.returncode != 0
    assert "exists and cannot be imported" in refused.stderr
    succeed("install", "other", CHART, "--take-ownership")
    assert "public" in empty.kubectl("get", "pool")
    succeed("upgrade", "other", CHART, "--set", "operator.replicas=2")
