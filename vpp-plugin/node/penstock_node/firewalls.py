"""What the node's rule set would do with one packet, as far as its rules can be understood. Pure.

Reads the JSON of `nft -j list ruleset`, which shows rules made by iptables too. Rules that look at what we do not
know are settled by the caller, so that a question is answered cautiously in its own sense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import Any

_MAX_DEPTH = 16  # the kernel allows as many jumps


class Verdict(Enum):
    """What becomes of a packet."""

    ACCEPT = "accept"
    DROP = "drop"
    REWRITE = "rewrite"  # source NAT or masquerade
    RETURN = "return"


@dataclass(frozen=True)
class Packet:
    """A packet, with what rules may ask of it: nft's names, such as `meta iifname` or `ip saddr`."""

    family: str  # ip or ip6
    fields: Mapping[str, str | int]


@dataclass(frozen=True)
class Chain:
    """A base chain."""

    family: str
    table: str
    name: str
    policy: Verdict

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


class RuleSet:
    """Chains and rules of a node."""

    def __init__(self, objects: Sequence[Mapping[str, Any]]) -> None:
        self._chains = [item["chain"] for item in objects if "chain" in item]
        self._rules: dict[tuple[str, str, str], list[list[Any]]] = {}
        for rule in (item["rule"] for item in objects if "rule" in item):
            self._rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule.get("expr", []))

    def base_chains(self, hook: str, kind: str) -> Iterator[Chain]:
        """Base chains of a hook and type that see IPv4 or IPv6."""
        for chain in self._chains:
            if chain.get("hook") == hook and chain.get("type") == kind and chain["family"] in ("ip", "ip6", "inet"):
                policy = Verdict.DROP if chain.get("policy") == "drop" else Verdict.ACCEPT
                yield Chain(chain["family"], chain["table"], chain["name"], policy)

    def verdict(self, chain: Chain, packet: Packet, unclear: Callable[[Verdict], bool]) -> Verdict:
        """What the chain decides; `unclear` says whether a rule that may or may not match counts as matching."""
        if chain.family not in ("inet", packet.family):
            return Verdict.ACCEPT
        decided = self._walk((chain.family, chain.table, chain.name), packet, unclear, 0)
        return chain.policy if decided in (None, Verdict.RETURN) else decided or chain.policy

    def _walk(
        self, key: tuple[str, str, str], packet: Packet, unclear: Callable[[Verdict], bool], depth: int
    ) -> Verdict | None:
        for expressions in self._rules.get(key, []) if depth < _MAX_DEPTH else []:
            matched = _all(_matches(expression, packet) for expression in expressions)
            if matched is False:
                continue
            verdict = _statement(expressions)
            if isinstance(verdict, str):
                verdict = self._walk((*key[:2], verdict), packet, unclear, depth + 1)
                verdict = None if verdict is Verdict.RETURN else verdict
            if verdict is not None and (matched or unclear(verdict)):
                return verdict
        return None


def _statement(expressions: Sequence[Mapping[str, Any]]) -> Verdict | str | None:
    """The verdict of a rule, the chain it jumps to, or None if it goes on to the next rule."""
    for expression in expressions:
        match expression:
            case {"accept": _}:
                return Verdict.ACCEPT
            case {"drop": _} | {"reject": _} | {"xt": {"type": "target", "name": "REJECT"}}:
                return Verdict.DROP
            case {"return": _}:
                return Verdict.RETURN
            case {"masquerade": _} | {"snat": _} | {"xt": {"type": "target", "name": "MASQUERADE" | "SNAT"}}:
                return Verdict.REWRITE
            case {"jump": {"target": str(target)}} | {"goto": {"target": str(target)}}:
                return target
    return None


def _matches(expression: Mapping[str, Any], packet: Packet) -> bool | None:
    """Whether an expression lets the packet pass; None if that cannot be told."""
    match expression:
        case {"match": {"op": op, "left": left, "right": right}}:
            value = _value(left, packet)
            found = None if value is None else _equals(value, right)
            if found is None or op not in ("==", "!=", "in"):
                return None
            return found if op != "!=" else not found
        case {"xt": {"type": "match", "name": "comment"}}:
            return True
        case {"xt": {"type": "match"}}:
            return None
    return True


def _value(left: Any, packet: Packet) -> str | int | None:
    match left:
        case {"meta": {"key": key}}:
            return packet.fields.get(f"meta {key}")
        case {"payload": {"protocol": protocol, "field": field}}:
            return packet.fields.get(f"{protocol} {field}")
        case {"ct": {"key": key}}:
            return packet.fields.get(f"ct {key}")
        case {"&": [inner, int(mask)]}:
            value = _value(inner, packet)
            return value & mask if isinstance(value, int) else None
    return None


def _equals(value: str | int, right: Any) -> bool | None:
    match right:
        case {"set": members}:
            return _any(_equals(value, member) for member in members)
        case {"prefix": {"addr": base, "len": length}}:
            return ip_address(str(value)) in ip_network(f"{base}/{length}", strict=False)
        case {"range": [first, last]}:
            return _in_range(value, first, last)
        case list(members):
            return _any(_equals(value, member) for member in members)
        case str(text):
            return _text_equals(str(value), text)
        case int(number):
            return value == number
    return None


def _in_range(value: str | int, first: Any, last: Any) -> bool | None:
    if isinstance(value, int) and isinstance(first, int) and isinstance(last, int):
        return first <= value <= last
    try:
        low, address, high = (int(ip_address(str(each))) for each in (first, value, last))
    except ValueError:
        return None
    return low <= address <= high


def _text_equals(value: str, text: str) -> bool | None:
    if text.startswith("@"):
        return None  # a named set: its elements are not followed
    return value.startswith(text[:-1]) if text.endswith("*") else value == text


def _all(results: Iterator[bool | None]) -> bool | None:
    """Conjunction with unknowns: one False settles it."""
    found = list(results)
    if False in found:
        return False
    return None if None in found else True


def _any(results: Iterator[bool | None]) -> bool | None:
    """Disjunction with unknowns: one True settles it."""
    found = list(results)
    if True in found:
        return True
    return None if None in found else False
