"""What the containers of a pod do: `prepare` the node for VPP, then `start` it under a supervisor."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import structlog
from penstock_embedded.sharing import share_directory
from penstock_embedded.supervisor import Backoff, Supervisor
from penstock_node import Finding, Severity, Veth, provide

from penstock_vpp import cards
from penstock_vpp.preflight import preflight
from penstock_vpp.settings import PodSettings
from penstock_vpp.startup import (
    CARDS_NAME,
    INTERFACES_NAME,
    STARTUP_NAME,
    WIRE_NAME,
    CardType,
    render_cards,
    render_interfaces,
    render_startup,
    render_wire,
)

log = structlog.get_logger()

# VPP takes seconds to start, and does not report when it is ready: what ends within these seconds may never have been.
BACKOFF = Backoff(longest_ready_seconds=1.0, healthy_seconds=10.0)
_SOCKETS = ("cli.sock", "api.sock", "stats.sock")


class UnfitNodeError(Exception):
    """VPP cannot run on this node; `findings` say why, and what helps."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__("; ".join(finding.message for finding in findings))
        self.findings = tuple(findings)


def prepare(settings: PodSettings, *, only_check: bool = False) -> None:
    """Check the node, then make VPP's device. Raises UnfitNodeError before anything is touched, or NodeError."""
    findings = preflight(settings)
    for finding in findings:
        log.warning("node", check=finding.check, finding=finding.message, remedy=" && ".join(finding.remedy))
    if errors := [finding for finding in findings if finding.severity is Severity.ERROR]:
        raise UnfitNodeError(errors)
    if only_check:
        return
    cards.take((card.device for card in settings.cards if card.type is not CardType.DPDK), settings.shm_dir)
    for change in provide(Veth()):
        log.info("node changed", change=str(change))


def start(settings: PodSettings) -> int:
    """Run VPP until SIGTERM, starting it again when it ends; return the exit code. The node stays as it is."""
    return Supervisor(lambda ready: _become_vpp(settings, ready), backoff=BACKOFF).run()


def _become_vpp(settings: PodSettings, ready: Callable[[], None]) -> int:
    """Become VPP: in the supervisor's child, with what this start finds."""
    processors = os.sched_getaffinity(0)
    if settings.exclusive_cpus and len(processors) > settings.workers + 1:
        log.warning(
            "processors are shared with other pods: have kubelets use the CPU manager's policy `static`",
            processors=len(processors),
        )
    settings.vpp_dir.mkdir(parents=True, exist_ok=True)
    share_directory(settings.shm_dir, settings.group)
    startup = settings.startup(processors)
    for name in _SOCKETS:
        (settings.vpp_dir / name).unlink(missing_ok=True)
    configuration = settings.vpp_dir / STARTUP_NAME
    configuration.write_text(render_startup(startup))
    (settings.vpp_dir / INTERFACES_NAME).write_text(render_interfaces(startup))
    (settings.vpp_dir / WIRE_NAME).write_text(render_wire(startup))
    (settings.vpp_dir / CARDS_NAME).write_text(render_cards(startup))
    ready()  # VPP itself does not report it
    os.execv(settings.program, [str(settings.program), "-c", str(configuration)])  # noqa: S606 - nothing of a shell
