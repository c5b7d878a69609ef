"""The policies that are compared, with the scheduler and the counts below each.

A told policy gets the true capacities as configured weights; the others get what the scenario configures. The core
has no round robin: its nearest relatives are `equal` (consistent hash, equal shares) and `random` (weighted random
with equal weights).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from penstock_agent.models import Model, ModelError, load
from penstock_agent.observation import FloatArray
from penstock_agent.policies import EVALUATED, Policy, learned
from penstock_embedded.messages import SchedulerLoad, SchedulerType
from penstock_sim import SERVER_FIELDS

from penstock_rl.evaluation.results import Results
from penstock_rl.simulation import Environment, Rule, Setting, Sharing

ACTIVE = "+active"  # suffix: the same on active counts
SHARED = "+shared"  # suffix: the same with a shared view, on active counts
MODEL = ".npz"  # suffix of a model's file
EXPONENTS = (0.5, 0.75, 1.25, 1.5, 2.0)  # of the capacity, beside 1, in the search for the best static SED


class PolicyNameError(ValueError):
    """A name that is not among the evaluated policies."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A policy as it is evaluated."""

    name: str
    title: str  # in tables
    heuristic: str | None = None  # of the agent; None: the rule decides
    scheduler: SchedulerType = SchedulerType.SED
    load: SchedulerLoad = SchedulerLoad.OPEN
    rule: Rule = Rule.SCHEDULER
    told: float | None = None  # exponent of the true capacity in configured weights; None: not told
    base: float | None = None  # fixed base of the scheduler; None: 1 / balancers
    model: Model | None = field(default=None, compare=False)  # instead of a heuristic
    sharing: Sharing | None = None  # balancers exchange their counts

    @property
    def policy(self) -> Policy | None:
        """The agent's policy."""
        if self.model is not None:
            return learned.policy(self.model, EVALUATED)
        return EVALUATED[self.heuristic] if self.heuristic else None

    def setting(self, level: str, forwarding: str) -> Setting:
        """Return the configuration of data planes in a scenario with these features and forwarding."""
        return Setting(self.scheduler, self.load, level, forwarding, self.rule, self.base, self.sharing)

    def prepared(self, environment: Environment, capacities: FloatArray) -> Environment:
        """Return the environment with the weights that this policy is told; a weight of 0 stays."""
        if self.told is None:
            return environment
        servers: FloatArray = np.array(environment["servers"], dtype=float)
        weight = servers[:, SERVER_FIELDS.index("weight")]
        weight[:] = np.where(weight > 0, capacities**self.told, 0.0)
        return {**environment, "servers": servers}

    def on_active(self) -> Evaluated:
        """Return the same on active counts."""
        return replace(self, name=self.name + ACTIVE, title=f"{self.title}, active", load=SchedulerLoad.ACTIVE)

    def with_sharing(self) -> Evaluated:
        """Return the same with a shared view, on active counts."""
        active = self if self.load is SchedulerLoad.ACTIVE else self.on_active()
        name = active.name.removesuffix(ACTIVE) + SHARED
        return replace(active, name=name, title=f"{active.title}, shared", sharing=Sharing())


def _sed(name: str, title: str, exponent: float, base: float | None = None) -> Evaluated:
    return Evaluated(name, title, "sed", told=exponent, base=base)


_BY_COUNTS = (
    Evaluated("lsq", "LSQ", "lsq", SchedulerType.LSQ),
    Evaluated("p2c", "P2C", "equal", SchedulerType.P2C),
    _sed("sed", "SED, told, base 1/L", 1.0),
    _sed("sed-base-1", "SED, told, base 1", 1.0, base=1.0),
    *(_sed(f"sed^{exponent:g}", f"SED, told, capacity^{exponent:g}", exponent) for exponent in EXPONENTS),
    Evaluated("inverse-duration", "1/d", "inverse-duration"),
    Evaluated("little", "l/d", "little"),
    Evaluated("prequal", "Prequal", "prequal"),
    Evaluated("bayes", "Bayes filter", "bayes"),
)

_ALONE = (
    Evaluated("equal", "equal", "equal", SchedulerType.MAGLEV),
    Evaluated("random", "random", "equal", SchedulerType.ALIAS),
    Evaluated("wcmp", "WCMP, told", "static", SchedulerType.MAGLEV, told=1.0),
    Evaluated("awcmp", "AWCMP", "awcmp", SchedulerType.ALIAS),
    Evaluated("knapsack", "KnapsackLB", "knapsack", SchedulerType.ALIAS),
)

_ORACLES = (
    Evaluated("oracle-sed", "oracle, SED", rule=Rule.ORACLE_SED),
    Evaluated("oracle-marginal", "oracle, marginal delay", rule=Rule.ORACLE_MARGINAL),
)

POLICIES: Mapping[str, Evaluated] = {
    each.name: each
    for each in (
        *_ALONE,
        *_BY_COUNTS,
        *(each.on_active() for each in _BY_COUNTS),
        *(each.with_sharing() for each in _BY_COUNTS if each.name in ("sed", "bayes")),
        *_ORACLES,
    )
}

_STATIC = ("sed", *(f"sed^{exponent:g}" for exponent in EXPONENTS))

COMPOSITES: Mapping[str, tuple[str, ...]] = {
    "sed-best": _STATIC,
    "sed-best" + ACTIVE: tuple(name + ACTIVE for name in _STATIC),
    "oracle": tuple(each.name for each in _ORACLES),
}
"""Policies that are, scenario by scenario, the best of others. The choice is made on the evaluated runs themselves,
so it favors them."""

_COMPOSITE_TITLES = {
    "sed-best": "best static SED",
    "sed-best" + ACTIVE: "best static SED, active",
    "oracle": "oracle",
}
_SHORTHANDS = {"1/d": "inverse-duration", "l/d": "little"}


def title(name: str) -> str:
    """Name a policy for people."""
    return _COMPOSITE_TITLES.get(name) or (POLICIES[name].title if name in POLICIES else name)


def on_counts_of(name: str, reference: str) -> str:
    """Return the reference policy on the counts that the named policy uses."""
    return reference + ACTIVE if name.endswith((ACTIVE, SHARED)) else reference


def default_names() -> tuple[str, ...]:
    """Return all policies and composites."""
    return (*POLICIES, *COMPOSITES)


def is_model(name: str) -> bool:
    """Tell whether a name is that of a model's file."""
    return name.strip().removesuffix(SHARED).endswith(MODEL)


def of_model(given: str) -> Evaluated:
    """Return the policy of a model's file, named after its card and digest; PolicyNameError says what is wrong.

    With the suffix +shared balancers exchange their counts.
    """
    path = Path(given.strip().removesuffix(SHARED))
    try:
        model = load(path)
        learned.anchor_of(model.metadata, EVALUATED)
    except ModelError as error:
        raise PolicyNameError(f"policy {path}: {error}") from error
    name = f"{model.card.name}@{model.sha256[:8]}"  # results of another file by that name are not mixed in
    plain = Evaluated(name, name, scheduler=model.metadata.scheduler, model=model)
    if given.strip().endswith(SHARED):
        return plain.with_sharing()
    return plain.on_active() if model.metadata.load is SchedulerLoad.ACTIVE else plain


def named(name: str) -> Evaluated:
    """Return one policy, or that of a model's file; PolicyNameError lists the known names."""
    if is_model(name):
        return of_model(name)
    try:
        return POLICIES[_canonical(name)]
    except KeyError:
        raise PolicyNameError(f"policy {name!r} is not known; use one of {', '.join(POLICIES)}") from None


def presented(results: Results) -> Results:
    """Return results with composites, and without the members of a search, which stand for one policy."""
    found = results.with_best_of(COMPOSITES)
    searched = {name for members in COMPOSITES.values() for name in members if "^" in name}
    return replace(found, runs=tuple(run for run in found.runs if run.policy not in searched))


def select(names: Iterable[str]) -> tuple[Evaluated, ...]:
    """Return what has to be run for these names: the gap needs LSQ on the same counts, and the oracle.

    A name that ends with .npz is a model's file. PolicyNameError lists the known names.
    """
    given = [name.strip() for name in names]
    models = [of_model(name) for name in given if is_model(name)]
    wanted = [_canonical(name) for name in given if not is_model(name)]
    for name in wanted:
        if name not in POLICIES and name not in COMPOSITES:
            raise PolicyNameError(f"policy {name!r} is not known; use some of {', '.join(default_names())}")
    compared = [*wanted, *(model.name for model in models)]
    wanted += [on_counts_of(name, "lsq") for name in compared] + ["oracle"]
    run: dict[str, None] = {}
    for name in wanted:
        run.update(dict.fromkeys(_members(name)))
    return (*(POLICIES[name] for name in POLICIES if name in run), *models)


def _members(name: str) -> Sequence[str]:
    return COMPOSITES.get(name, (name,))


def _canonical(name: str) -> str:
    plain = name.strip().removesuffix(ACTIVE).removesuffix(SHARED)
    return _SHORTHANDS.get(plain, plain) + name.strip()[len(plain) :]
