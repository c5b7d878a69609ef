"""Programs of a cluster: what one `go build` makes of several packages."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.cluster import binaries
from e2e.cluster.errors import MissingProgramError


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("go.etcd.io/etcd/server/v3", "server"),
        ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
        ("helm.sh/helm/v4/cmd/helm", "helm"),
        ("./cmd/pause", "pause"),
    ],
)
def test_go_names_a_program_by_the_last_part_that_is_no_version(package: str, name: str) -> None:
    assert binaries.file_name(package) == name


@pytest.mark.parametrize("suite", binaries.SUITES, ids=lambda suite: suite.name)
def test_programs_of_one_build_have_names_of_their_own(suite: binaries.Suite) -> None:
    names = [binaries.file_name(package) for package in suite.packages.values()]
    assert len(set(names)) == len(names)


def versions(module: Path) -> dict[str, str]:
    lines = re.findall(r"^\t(\S+) (v\S+)", (module / "go.mod").read_text(), re.MULTILINE)
    return {name: version for name, version in lines if version != "v0.0.0"}


def test_helm_is_compiled_from_the_packages_that_kubernetes_is() -> None:
    """Else a first run compiles the API and its client twice: some two minutes of two processors."""
    ours, theirs = versions(binaries.CHARTS.module), versions(binaries.KUBERNETES.module)
    shared = {name for name in ours if name.startswith(("k8s.io/", "golang.org/x/net", "google.golang.org/protobuf"))}
    assert {name: ours[name] for name in shared & theirs.keys()} == {
        name: theirs[name] for name in shared & theirs.keys()
    }


def test_an_unknown_program_is_an_error() -> None:
    with pytest.raises(MissingProgramError, match="kubeadm"):
        binaries.program("kubeadm")


def test_what_another_thread_compiles_can_be_ended() -> None:
    started = threading.Event()
    command = ["sh", "-c", "echo compiling >&2; exec sleep 60"]
    with ThreadPoolExecutor() as pool:
        done = pool.submit(binaries._run_go, binaries._suite("kubectl"), command, lambda _: started.set())
        assert started.wait(30)
        binaries.stop()
        with pytest.raises(MissingProgramError):
            done.result(30)
