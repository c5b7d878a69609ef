"""A cluster with Penstock and servers in it, once for all end-to-end tests, and what they do to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from e2e.cluster.providers import find
from e2e.cluster.spec import make_spec
from e2e.cluster.steps import step
from e2e.hugepages import borrowed
from e2e.images import vpp
from e2e.images.build import ROLES, TOOLS, VPP, build
from e2e.installation import LABELS, Installation
from e2e.shop import NAMESPACE, Shop

CLUSTER = os.environ.get("CLUSTER", "penstock-e2e")
DEMO_MANIFESTS = Path(__file__).parent / "demo/manifests"


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """Penstock, installed by its chart into a cluster of four nodes."""
    cluster = find(os.environ.get("PROVIDER", "local"), CLUSTER)
    with_vpp = not vpp.missing()
    with step("container images"):
        names = (*ROLES, *TOOLS)
        found = Installation(cluster, build((*names, VPP) if with_vpp else names))
    cluster.down()
    with borrowed() if with_vpp else nullcontext():  # before the kubelets start: they count them then
        try:
            with step("cluster"):
                cluster.up(make_spec(4, name=CLUSTER, labels=LABELS, exclusive_cpus=with_vpp))
                found.load_images()
            with step("Penstock"):
                found.install("--set=operator.replicas=2")
                found.apply(DEMO_MANIFESTS / "penstock.yaml")
                found.wait_condition("dataplane", "edge", "Ready")
            yield found
        finally:
            cluster.down()


@pytest.fixture(scope="session")
def shop(installation: Installation) -> Shop:
    """Servers and a VIP that is Ready."""
    shop = Shop(installation)
    with step("servers and VIP"):
        shop.apply_servers()
        shop.rolled_out()
        shop.apply_vip()
        installation.wait_condition("loadbalancervip", "web", "Ready", namespace=NAMESPACE)
        shop.wait_backends("4/4")
    return shop


@pytest.fixture(autouse=True)
def no_request_is_refused(installation: Installation) -> Iterator[None]:
    """Fail a test in which operator or agents asked for what they have no right to: roles and code must agree."""
    yield
    refusals = installation.refusals()
    assert not refusals, "the API server refused requests:\n" + "\n".join(refusals[:20])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the quick start first: it makes a cluster of its own, and two do not fit on a small machine."""
    items.sort(key=lambda item: item.path.name != "test_quick_start.py")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Attach the pods' last log lines to a failure."""
    report = yield
    found = getattr(item, "funcargs", {}).get("installation") or getattr(
        getattr(item, "funcargs", {}).get("shop"), "installation", None
    )
    if report.when == "call" and report.failed and found is not None:  # type: ignore[attr-defined]
        try:
            report.sections.append(("pods", found.logs()))  # type: ignore[attr-defined]
        except Exception as error:  # a report about a failure must not hide it
            report.sections.append(("pods", f"no logs: {error}"))  # type: ignore[attr-defined]
    return report
