"""`penstock top`: what every load-balancing node sees and decides, live."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Annotated

import typer

from penstock_cli.agents import LOCAL_URL, Agents, Answers, ClusterAgents, UrlAgents, cluster_client
from penstock_cli.failure import fail, reported
from penstock_cli.roles import Kubeconfig, Namespace


class Output(StrEnum):
    """How the states are shown."""

    TABLE = "table"
    JSON = "json"


def top(
    url: Annotated[
        list[str] | None, typer.Option(help="Address of an agent, http://HOST:PORT; repeatable; instead of a cluster.")
    ] = None,
    local: Annotated[bool, typer.Option("--local", help=f"Short for --url {LOCAL_URL}: `penstock run` here.")] = False,
    namespace: Namespace = "penstock-system",
    kubeconfig: Kubeconfig = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="`table` is live; `json` is one line per round.")
    ] = Output.TABLE,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between rounds.")] = 1.0,
    within: Annotated[
        float, typer.Option(min=0, help="Latencies of flows of the last so many seconds; 0: of all that are kept.")
    ] = 0.0,
    rounds: Annotated[int, typer.Option("--rounds", "-r", min=0, help="Rounds before it ends; 0: until Ctrl-C.")] = 0,
) -> None:
    """Show, live, every VIP with its backends: weights in force, open flows, rates, latencies, health.

    Latencies are completion times of flows as the load balancer saw them pass; nothing is asked of servers or clients.
    Where the DataPlane has features: full, medians of handshake and first byte stand beside them. Without a terminal
    the table is plain lines. The exit code is 1 if no agent answered in the last round.
    """
    from penstock_kube import ApiError, KubeConfigError

    urls = tuple(url or ()) + ((LOCAL_URL,) if local else ())

    @asynccontextmanager
    async def connect() -> AsyncIterator[Agents]:
        if urls:
            yield UrlAgents(urls, within)
            return
        async with cluster_client(kubeconfig) as client:
            yield ClusterAgents(client, namespace, within)

    async def show() -> Answers:
        async with connect() as agents:
            if output is Output.JSON:
                return await _json(agents, interval, rounds)
            if sys.stdout.isatty():
                return await _live(agents, interval, rounds)
            return await _plain(agents, interval, rounds)

    with reported(ApiError, KubeConfigError):
        try:
            last = asyncio.run(show())
        except KeyboardInterrupt:
            raise typer.Exit from None
    if not last.states:
        fail(_why_none(last, urls, namespace))


def _why_none(answers: Answers, urls: tuple[str, ...], namespace: str) -> str:
    if answers.problems:
        return f"no agent answered: {answers.problems[0]}"
    assert not urls  # noqa: S101 - each of them gives a state or a problem
    return f"no agent in namespace {namespace}; name another one by --namespace, or make a DataPlane"


async def _rounds(agents: Agents, interval: float, rounds: int) -> AsyncIterator[Answers]:
    done = 0
    while True:
        began = time.monotonic()
        yield await agents.ask()
        done += 1
        if rounds and done >= rounds:
            return
        await asyncio.sleep(max(0.0, interval - (time.monotonic() - began)))


async def _json(agents: Agents, interval: float, rounds: int) -> Answers:
    answers = Answers((), ())
    async for answers in _rounds(agents, interval, rounds):
        agents_json = [state.model_dump(mode="json") for state in answers.states]
        typer.echo(json.dumps({"agents": agents_json, "problems": answers.problems}))
        if not answers.states and not rounds:
            break  # nobody would notice that there is nothing to see
    return answers


async def _plain(agents: Agents, interval: float, rounds: int) -> Answers:
    from penstock_cli.table import lines

    answers = Answers((), ())
    async for answers in _rounds(agents, interval, rounds):
        for line in lines(answers.states):
            typer.echo(line)
        for problem in answers.problems:
            typer.echo(f"penstock: {problem}", err=True)
        if not answers.states and not rounds:
            break
    return answers


async def _live(agents: Agents, interval: float, rounds: int) -> Answers:
    from rich.console import Console
    from rich.live import Live

    from penstock_cli.table import render

    console = Console()
    answers = Answers((), ())
    with Live(console=console, screen=console.is_terminal and rounds != 1, auto_refresh=False) as live:
        async for answers in _rounds(agents, interval, rounds):
            live.update(render(answers.states, answers.problems, width=console.width), refresh=True)
    return answers
