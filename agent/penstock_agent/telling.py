"""What an agent tells users by Kubernetes Events: once when it begins, once when it is over, never a flood.

`situations` says what goes on, `Teller` when to say so; both compute only. `Herald` looks once a second and records.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from penstock_api.dataplanenode import DataPlaneNode
from penstock_api.names import API_VERSION
from penstock_api.vip import LoadBalancerVIP
from penstock_kube import EventRecorder, Object

from penstock_agent.agent import Agent
from penstock_agent.desired import CoreVip, Owner
from penstock_agent.loop import Steering
from penstock_agent.shortages import Shortage, Shortages, describe
from penstock_agent.sources.kubernetes import KubernetesSource

CONTROLLER = "penstock.dev/agent"  # the admission policy allows an agent no other

LOOK_SECONDS = 1.0
QUIET_SECONDS = 60.0  # between two Events of one reason about one object, however often it comes and goes
REPEAT_SECONDS = 1800.0  # an Event is forgotten by the API server after an hour: what lasts is said again before


class Situation(StrEnum):
    """Reasons of Events, beside those of `Shortage`."""

    ALL_BACKENDS_FAILING = "AllBackendsFailing"
    POLICY_FALLBACK = "PolicyFallback"
    DATAPLANE_UNREACHABLE = "DataPlaneUnreachable"


@dataclass(frozen=True, slots=True)
class About:
    """When something is worth an Event, and which Event says that it is over."""

    patience: float  # seconds that it must have lasted
    over: str = ""  # reason; "" where nobody needs to hear of the end
    note: str = ""


ABOUT: dict[Situation | Shortage, About] = {
    Situation.ALL_BACKENDS_FAILING: About(3.0, "BackendsHealthy", "backends pass their health checks again"),
    Situation.POLICY_FALLBACK: About(5.0, "PolicyResumed", "the policy sets the weights again"),
    Situation.DATAPLANE_UNREACHABLE: About(10.0, "DataPlaneReachable", "the data plane answers again"),
    **dict.fromkeys(Shortage, About(0.0)),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """The object that an Event is about."""

    kind: str
    namespace: str
    name: str
    uid: str

    def reference(self) -> Object:
        """Return as much of the object as a recorder needs."""
        metadata = {"name": self.name, "uid": self.uid, **({"namespace": self.namespace} if self.namespace else {})}
        return {"apiVersion": API_VERSION, "kind": self.kind, "metadata": metadata}


Key = tuple[Subject, Situation | Shortage]


@dataclass(frozen=True, slots=True)
class Notice:
    """One Event to be recorded."""

    subject: Subject
    warning: bool
    reason: str
    note: str


@dataclass(slots=True)
class _Episode:
    began: float
    told: bool = False


@dataclass(slots=True)
class Teller:
    """Decides what to say of situations that come and go."""

    node: str
    _going_on: dict[Key, _Episode] = field(default_factory=dict)
    _last: dict[Key, float] = field(default_factory=dict)

    def tell(self, situations: Mapping[Key, str], now: float) -> list[Notice]:
        """Return what is to be said at `now` (seconds of any clock) where `situations` (with notes) go on."""
        notices = [notice for key, note in situations.items() for notice in self._goes_on(key, note, now)]
        for key in self._going_on.keys() - situations.keys():
            notices += self._is_over(key)
        self._last = {key: at for key, at in self._last.items() if now - at < QUIET_SECONDS or key in self._going_on}
        return notices

    def _goes_on(self, key: Key, note: str, now: float) -> Iterator[Notice]:
        episode = self._going_on.setdefault(key, _Episode(now))
        silent = now - self._last.get(key, float("-inf"))
        due = silent >= REPEAT_SECONDS if episode.told else silent >= QUIET_SECONDS
        if due and now - episode.began >= ABOUT[key[1]].patience:
            episode.told = True
            self._last[key] = now
            yield Notice(key[0], True, key[1], f"node {self.node}: {note}")

    def _is_over(self, key: Key) -> Iterator[Notice]:
        episode, about = self._going_on.pop(key), ABOUT[key[1]]
        if episode.told and about.over:
            yield Notice(key[0], False, about.over, f"node {self.node}: {about.note}")


def situations(agent: Agent, node: DataPlaneNode, shortages: Iterable[Shortage]) -> dict[Key, str]:
    """Say what goes on at an agent's node: notes by object and reason; they name no number that always moves."""
    found: dict[Key, str] = {}
    dpn = Subject(DataPlaneNode.info.kind, "", node.metadata.name, node.metadata.uid)
    for shortage in shortages:
        found[dpn, shortage] = describe(shortage, node.spec.data_plane_name)
    if agent.link.hello is None:
        # All else follows from this, and health checks may go through the data plane.
        found[dpn, Situation.DATAPLANE_UNREACHABLE] = (
            f"{agent.link.error or 'the data plane was not reached yet'}; "
            "look at the data-plane pod of this node and its log"
        )
        return found
    for owner, cores in _by_owner(agent).items():
        vip = Subject(LoadBalancerVIP.info.kind, owner.namespace, owner.name, owner.uid)
        if note := _failing(agent, cores):
            found[vip, Situation.ALL_BACKENDS_FAILING] = note
        if note := _fallback(agent.loop.vips, cores):
            found[vip, Situation.POLICY_FALLBACK] = note
    return found


def _by_owner(agent: Agent) -> dict[Owner, list[CoreVip]]:
    cores: defaultdict[Owner, list[CoreVip]] = defaultdict(list)
    for core in agent.plan.vips if agent.plan else ():
        cores[core.owner].append(core)
    return cores


def _ports(cores: Iterable[CoreVip]) -> str:
    return ", ".join(dict.fromkeys(f"{core.vip.port}/{core.vip.protocol}" for core in cores))


def _failing(agent: Agent, cores: list[CoreVip]) -> str:
    """Say which ports have no healthy backend, and what the first failing check found."""
    outcome = agent.outcome
    open_ = [core for core in cores if outcome and outcome.used_instead(core.vip.id)]
    if outcome is None or not open_:
        return ""
    states = agent.checker.states
    causes = (states[t].error for core in open_ for t in core.targets.values() if t in states and states[t].error)
    cause = next(causes, "")
    return (
        f"all backends of port {_ports(open_)} fail their health checks{f' ({cause})' if cause else ''}; "
        f"{outcome.used_instead(open_[0].vip.id)}: check the backends, or spec.healthCheck if they do serve"
    )


def _fallback(steering: Mapping[str, Steering], cores: list[CoreVip]) -> str:
    """Say which policy does not decide, and why."""
    troubled = [core for core in cores if core.vip.id in steering and steering[core.vip.id].troubled_at is not None]
    if not troubled:
        return ""
    policy, why = troubled[0].policy, steering[troubled[0].vip.id]
    return (
        f"policy {policy.heuristic} of port {_ports(troubled)} cannot decide ({why.reason}: {why.error}); "
        f"its fallback {policy.fallback} is used until it can"
    )


class Herald:
    """Records Events of what goes on at this node."""

    def __init__(
        self,
        recorder: EventRecorder,
        agent: Agent,
        source: KubernetesSource,
        *,
        shortages: Shortages,
        node_name: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._recorder = recorder
        self._agent = agent
        self._source = source
        self._clock = clock
        self._teller = Teller(node_name)
        self._shortages = shortages

    async def run(self) -> None:
        """Look once a second until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Record what is to be said now."""
        node, now = self._source.node, self._clock()
        shortages = self._shortages.look(self._agent.link.stats, now)
        if node is None or node.deleting:
            return
        for notice in self._teller.tell(situations(self._agent, node, shortages), now):
            self._recorder.record(
                notice.subject.reference(),
                type_="Warning" if notice.warning else "Normal",
                reason=notice.reason,
                note=notice.note,
                action="Forward",
            )
