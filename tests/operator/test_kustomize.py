"""Kustomize changes the names that objects of ours refer to, with the configuration in examples/kustomize."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from penstock_api import KINDS
from pydantic import BaseModel

from e2e.cluster import ControlPlane, binaries

EXAMPLE = Path(__file__).parents[2] / "examples" / "kustomize"
pytestmark = pytest.mark.apiserver


def build(folder: Path) -> dict[str, Any]:
    command = [str(binaries.program("kubectl")), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in yaml.safe_load_all(done.stdout)}


def test_a_prefix_reaches_what_a_vip_refers_to(apiserver: ControlPlane) -> None:
    spec = build(EXAMPLE)["LoadBalancerVIP/staging-web"]["spec"]
    assert (spec["backends"]["service"]["name"], spec["policyName"]) == ("staging-web", "staging-fastest")


def test_every_reference_is_known(apiserver: ControlPlane, tmp_path: Path) -> None:
    names = {"dataPlaneName": "edge", "addressPool": "public", "policyName": "fastest"}
    vip = {
        "apiVersion": "penstock.dev/v1alpha1",
        "kind": "LoadBalancerVIP",
        "metadata": {"name": "all"},
        "spec": {"ports": [{"port": 80}], "backends": {"service": {"name": "web"}}, **names},
    }
    others = [
        {"apiVersion": "penstock.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": {}}
        for kind, name in (("DataPlane", "edge"), ("AddressPool", "public"))
    ]
    for file in EXAMPLE.iterdir():
        shutil.copy(file, tmp_path)
    shop = (EXAMPLE / "shop.yaml").read_text()
    (tmp_path / "shop.yaml").write_text(f"{yaml.safe_dump_all([vip, *others])}---\n{shop}")
    spec = build(tmp_path)["LoadBalancerVIP/staging-all"]["spec"]
    assert {name: spec[name] for name in names} == {name: f"staging-{value}" for name, value in names.items()}
    assert set(references(KINDS["LoadBalancerVIP"].model_fields["spec"].annotation)) == {*names, "service"}


def references(model: Any) -> list[str]:
    """Return the fields of a VIP's spec that name another object."""
    assert issubclass(model, BaseModel)
    ends = ("Name", "Pool")
    found = [field.alias or name for name, field in model.model_fields.items()]
    return [name for name in found if name.endswith(ends)] + ["service"]
