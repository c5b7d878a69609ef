"""How `penstock top` looks: agents' states in, rich tables out; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from penstock_agent.state import AgentState, BackendView, Durations, VipView

BAR_CELLS = 12
WIDE = 110  # characters from which on every column fits
COLUMNS: dict[str, Literal["left", "right"]] = {
    "backend": "left",
    "state": "left",
    "weight": "right",
    "base": "right",
    "": "left",
    "open": "right",
    "flows/s": "right",
    "share": "right",
    "mean": "right",
    "p50": "right",
    "p90": "right",
    "handshake": "right",
    "1st byte": "right",
    "flows": "right",
}
WIDE_ONLY = frozenset({"", "base", "p50", "handshake", "1st byte", "flows"})
SOMETIMES = frozenset({"base", "handshake", "1st byte"})  # only some policies set, and only some DataPlanes measure


def render(states: Iterable[AgentState], problems: Iterable[str] = (), *, width: int = WIDE) -> RenderableType:
    """One panel per node, a table per core VIP in it; problems of agents that gave no answer below.

    `width` is that of the terminal in characters: a narrow one shows fewer columns.
    """
    wide = width >= WIDE
    panels: list[RenderableType] = [_node(state, wide) for state in sorted(states, key=lambda state: state.node)]
    panels += [Text(problem, style="red") for problem in problems]
    return Group(*panels) if panels else Text("no agent found", style="yellow")


def _node(state: AgentState, wide: bool) -> Panel:
    link = state.link
    dropped = sum(link.dropped.values())
    head = Text.assemble(
        ("data plane ", "dim"),
        ("connected" if link.connected else "away", "green" if link.connected else "red"),
        ("  flows ", "dim"),
        f"{link.flows:,}/{link.flow_capacity:,}",
        ("  packets ", "dim"),
        f"{link.packets:,}",
        ("  dropped ", "dim"),
        f"{dropped:,}",
        ("  announces ", "dim"),
        ", ".join(map(str, state.announced)) or "-",
    )
    parts: list[RenderableType] = [head]
    parts += [Text(text, style="red") for text in (state.source_error, link.error, *state.findings) if text]
    parts += [_vip(vip, wide) for vip in sorted(state.vips, key=lambda vip: vip.key)]
    return Panel(Group(*parts), title=f"{state.node} ({state.dataplane})", title_align="left", border_style="blue")


def _vip(vip: VipView, wide: bool) -> RenderableType:
    addresses = ", ".join(str(address) for address in vip.addresses)
    fallback = f", using {vip.fallback}: {vip.fallback_reason}" if vip.fallback_reason else ""
    title = Text.assemble(
        (f"{vip.namespace}/{vip.name}", "bold"),
        f"  {addresses} {vip.port}/{vip.protocol.value}  ",
        (f"{vip.policy} ({vip.mode}){fallback}", "yellow" if vip.fallback_reason else "cyan"),
        f"  {vip.scheduler.value}",
        ("  paused" if vip.paused else "", "yellow"),
        ("  all backends fail their checks: the last ones stay in use" if vip.fail_open else "", "red"),
    )
    heaviest = max((backend.weight or 0.0 for backend in vip.backends), default=0.0)
    rate = sum(backend.flow_rate for backend in vip.backends)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    rows = [_backend(backend, heaviest, rate) for backend in vip.backends]
    shown = [name for name in COLUMNS if wide or name not in WIDE_ONLY]
    absent = {name for name in SOMETIMES if all(cells[name] == "-" for cells in rows)}
    for name in shown:
        if name not in absent:
            table.add_column(name, justify=COLUMNS[name], no_wrap=True)
    for cells in rows:
        table.add_row(*(cells[name] for name in shown if name not in absent))
    troubles = [
        *vip.errors,
        *(["few backends pass their checks: those whose checks are late are used too"] if vip.panic else []),
        *(["clients get no packet of any backend: check the node's firewall and routes"] if vip.no_path else []),
    ]
    notes = [Text(text, style="red") for text in troubles] + [Text(text, style="yellow") for text in vip.warnings]
    return Group(Text(""), title, table, *notes)


def _backend(backend: BackendView, heaviest: float, rate: float) -> dict[str, RenderableType]:
    weight = backend.weight or 0.0
    mean, p50, p90 = _durations(backend.fct)
    return {
        "backend": _place(backend),
        "state": _state(backend),
        "weight": "-" if backend.weight is None else f"{weight:.3g}",
        "base": "-" if backend.base is None else f"{backend.base:.3g}",
        "": Text("█" * round(BAR_CELLS * weight / heaviest) if heaviest > 0 else "", style="cyan"),
        "open": f"{backend.open_flows:,}",
        "flows/s": f"{backend.flow_rate:.1f}",
        "share": f"{backend.flow_rate / rate:.0%}" if rate > 0 else "-",
        "mean": mean,
        "p50": p50,
        "p90": p90,
        "handshake": _durations(backend.handshake)[1],
        "1st byte": _durations(backend.first_byte)[1],
        "flows": f"{backend.flows:,}",
    }


def _place(backend: BackendView) -> str:
    address = f"[{backend.address}]" if backend.address.version == 6 else str(backend.address)
    return f"{address}:{backend.port}"


def _state(backend: BackendView) -> Text:
    if not backend.healthy:
        return Text(f"failed: {backend.health_error}"[:40] if backend.health_error else "failed", style="red")
    return Text(backend.state.value, style="green" if backend.state.value == "active" else "yellow")


def lines(states: Iterable[AgentState], problems: Iterable[str] = ()) -> Iterator[str]:
    """The same as plain lines, for files and pipes: never wrapped, without boxes, bars and colors."""
    for state in sorted(states, key=lambda state: state.node):
        link = state.link
        yield (
            f"node {state.node} ({state.dataplane}): data plane {'connected' if link.connected else 'away'}, "
            f"flows {link.flows}/{link.flow_capacity}, packets {link.packets}, dropped {sum(link.dropped.values())}, "
            f"announces {', '.join(map(str, state.announced)) or '-'}"
        )
        yield from (f"  {text}" for text in (state.source_error, link.error, *state.findings) if text)
        for vip in sorted(state.vips, key=lambda vip: vip.key):
            yield from _vip_lines(vip)
    yield from problems


def _vip_lines(vip: VipView) -> Iterator[str]:
    fallback = f", using {vip.fallback}: {vip.fallback_reason}" if vip.fallback_reason else ""
    addresses = ", ".join(map(str, vip.addresses))
    yield (
        f"  {vip.namespace}/{vip.name}  {addresses} {vip.port}/{vip.protocol.value}  "
        f"{vip.policy} ({vip.mode}){fallback}  {vip.scheduler.value}{'  paused' if vip.paused else ''}"
    )
    rate = sum(backend.flow_rate for backend in vip.backends)
    rows = [_backend(backend, 0.0, rate) for backend in vip.backends]
    columns = [name for name in COLUMNS if name]
    table = [columns, *([str(row[name]) for name in columns] for row in rows)]
    widths = [max(len(line[index]) for line in table) for index in range(len(columns))]
    for line in table:
        cells = zip(columns, line, widths, strict=True)
        aligned = (c.ljust(w) if COLUMNS[name] == "left" else c.rjust(w) for name, c, w in cells)
        yield f"    {'  '.join(aligned)}".rstrip()
    yield from (f"    {text}" for text in (*vip.errors, *vip.warnings))


def _durations(durations: Durations | None) -> tuple[str, str, str]:
    if durations is None or durations.samples == 0:
        return "-", "-", "-"
    return seconds(durations.mean), seconds(durations.p50), seconds(durations.p90)


def seconds(value: float) -> str:
    """Render a duration in three digits and the unit that fits."""
    if value < 1e-3:
        return f"{value * 1e6:.0f} us"
    if value < 1.0:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s"
