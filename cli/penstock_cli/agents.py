"""Where the agents are, and their states: over HTTP directly, or through the API server's pod proxy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from penstock_agent.state import AgentState
    from penstock_kube import KubeClient, Object

PORT_NAME = "metrics"
DEFAULT_PORT = 9402
LOCAL_URL = f"http://127.0.0.1:{DEFAULT_PORT}"
TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Answers:
    """What all agents said in one round; a problem is a sentence about an agent that gave no answer."""

    states: tuple[AgentState, ...]
    problems: tuple[str, ...]


class Agents(Protocol):
    """A set of agents that can be asked for their states."""

    async def ask(self) -> Answers:
        """Ask all of them at once."""
        ...


class UrlAgents:
    """Agents by their addresses."""

    def __init__(self, urls: tuple[str, ...], within: float = 0.0) -> None:
        self._urls = urls
        self._path = _path(within)

    async def ask(self) -> Answers:
        """Ask all of them at once."""
        return _collect(await asyncio.gather(*(self._one(url) for url in self._urls)))

    async def _one(self, url: str) -> AgentState | str:
        import httpx
        from penstock_agent.state import AgentState
        from pydantic import ValidationError

        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
                response = await client.get(f"{url.rstrip('/')}/{self._path}")
                response.raise_for_status()
                return AgentState.model_validate_json(response.content)
        except (httpx.HTTPError, ValidationError) as error:
            return f"{url}: {error or type(error).__name__}; is an agent running there?"


class ClusterAgents:
    """Agents of an installation, found by their pods' labels; needs the right to `get pods/proxy`."""

    def __init__(self, client: KubeClient, namespace: str, within: float = 0.0) -> None:
        self._path = _path(within)
        self._client = client
        self._namespace = namespace

    async def ask(self) -> Answers:
        """Ask all of them at once."""
        from penstock_api.names import COMPONENT_LABEL, PART_OF_LABEL
        from penstock_kube import PODS

        selector = f"{PART_OF_LABEL}=penstock,{COMPONENT_LABEL}=agent"
        pods, _ = await self._client.list(PODS, self._namespace, label_selector=selector)
        return _collect(await asyncio.gather(*(self._one(pod["metadata"]["name"], _port(pod)) for pod in pods)))

    async def _one(self, pod: str, port: int) -> AgentState | str:
        from penstock_agent.state import AgentState
        from penstock_kube import ApiError, Forbidden
        from pydantic import ValidationError

        path = f"/api/v1/namespaces/{self._namespace}/pods/{pod}:{port}/proxy/{self._path}"
        try:
            return AgentState.model_validate(await self._client.get_path(path))
        except Forbidden as error:
            return f"{pod}: {error}; this needs the right to get pods/proxy in namespace {self._namespace}"
        except (ApiError, ValidationError) as error:
            return f"{pod}: {error}"


def cluster_client(kubeconfig: Path | None) -> KubeClient:
    """Connect to the cluster; raises KubeConfigError with the fix."""
    from penstock_kube import KubeClient

    return KubeClient.from_kubeconfig(str(kubeconfig) if kubeconfig else None)


def _path(within: float) -> str:
    """Return the page of an agent; with durations of the last so many seconds, or of all samples that it has."""
    return f"state?within={within:g}" if within else "state"


def _port(pod: Object) -> int:
    """Return the number of the pod's metrics port: the proxy resolves names of Services' ports only."""
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports", ())]
    return next((int(port["containerPort"]) for port in ports if port.get("name") == PORT_NAME), DEFAULT_PORT)


def _collect(results: list[AgentState | str]) -> Answers:
    states = tuple(result for result in results if not isinstance(result, str))
    return Answers(states, tuple(result for result in results if isinstance(result, str)))
