"""Any scenario that a file may hold, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return (
        st.floats(low, high, allow_nan=False)
        .map(lambda value: float(f"{value:.5g}"))
        .filter(lambda v: low <= v <= high)
    )


def spans(low: float, high: float) -> st.SearchStrategy[Any]:
    return numbers(low, high) | st.lists(numbers(low, high), min_size=2, max_size=2).map(sorted)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def joined(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda each: {key: value for part in each for key, value in part.items()})


QUOTAS = joined(st.fixed_dictionaries({"cpus": numbers(0.01, 16)}), optional(period=numbers(0.01, 1)))
LIMITS = st.fixed_dictionaries({"limit": st.integers(1, 500), "backlog": st.integers(0, 511)})
GROUPS = joined(
    st.fixed_dictionaries({"cores": numbers(0.01, 64)}),
    optional(
        count=st.integers(1, 6),
        speed=numbers(0.001, 1000),
        quota=QUOTAS,
        thrash=st.fixed_dictionaries({"above": st.integers(0, 100), "slope": numbers(0, 100)}),
        latency=numbers(0, 10),
        weight=numbers(0, 1e6),
    ),
    st.just({}) | LIMITS,
)
FACTORS = st.lists(numbers(0.001, 1000), min_size=2, max_size=5)
PATTERNS = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"factors": FACTORS, "every": numbers(0.1, 100)}).map(lambda body: {"modulated": body}),
    FACTORS.flatmap(
        lambda factors: st.lists(numbers(0.1, 100), min_size=len(factors), max_size=len(factors)).map(
            lambda dwell: {"mmpp": {"factors": factors, "dwell": dwell}}
        )
    ),
    optional(day=numbers(1, 1000), begin=numbers(0, 24)).map(lambda body: {"diurnal": body}),
    joined(
        st.fixed_dictionaries({"first": numbers(0, 1000), "last": numbers(0.001, 1000)}),
        optional(begin=numbers(0, 50), end=numbers(60, 1000)),
    ).map(lambda body: {"ramp": body}),
)
LOADS = st.one_of(
    numbers(0.01, 2).map(lambda load: {"load": load}),
    numbers(0.01, 2).map(lambda load: {"peakLoad": load}),
    numbers(0.1, 10_000).map(lambda rate: {"rate": rate}),
)
WORKS = st.one_of(
    optional(distribution=st.sampled_from(["constant", "exponential", "lognormal", "pareto"]), mean=numbers(1e-3, 10)),
    st.fixed_dictionaries({"distribution": st.just("lognormal"), "sigma": numbers(0.01, 3)}),
    st.fixed_dictionaries({"distribution": st.just("pareto"), "alpha": numbers(1.05, 10), "max": numbers(0.3, 1000)}),
)
CLASSES = joined(
    optional(share=numbers(0.001, 1000), work=WORKS, io=numbers(0, 10)),
    st.just({})
    | st.fixed_dictionaries({"requests": numbers(1.5, 100), "geometric": st.just(True), "think": numbers(0, 9)}),
    st.just({}) | st.fixed_dictionaries({"idleShare": numbers(0.01, 1), "idle": numbers(0.01, 100)}),
)
SERVERS = st.lists(st.just(0), min_size=1, max_size=3)
TIMES = numbers(0, 120)
REPEATED = {"every": spans(0.1, 100), "times": st.integers(1, 20)}
DISTURBANCES = st.one_of(
    joined(
        st.fixed_dictionaries({"at": TIMES, "lasting": spans(0.001, 100), "factor": spans(0.001, 1)}),
        optional(**REPEATED, servers=SERVERS),
    ).map(lambda body: {"noisyNeighbor": body}),
    joined(
        st.fixed_dictionaries({"at": TIMES}),
        optional(**REPEATED, lasting=spans(0.001, 100), detection=numbers(0, 10), servers=SERVERS),
    ).map(lambda body: {"failure": body}),
    joined(
        st.fixed_dictionaries({"at": TIMES}),
        optional(drain=numbers(0, 20), down=numbers(0.001, 20), detection=numbers(0, 9), pause=numbers(0, 9)),
    ).map(lambda body: {"rollingRestart": body}),
    joined(st.fixed_dictionaries({"at": TIMES, "servers": SERVERS}), optional(every=numbers(0, 9))).map(
        lambda body: {"add": body}
    ),
    joined(
        st.fixed_dictionaries({"at": TIMES, "servers": SERVERS}), optional(every=numbers(0, 9), drain=numbers(0, 9))
    ).map(lambda body: {"remove": body}),
    st.fixed_dictionaries(
        {"at": TIMES, "servers": SERVERS, "cores": numbers(0.01, 99), "speed": numbers(0.001, 99)}
    ).map(lambda body: {"capacityChange": body}),
)


@st.composite
def raw_scenarios(draw: st.DrawFn) -> dict[str, Any]:
    """The content of a file that is right, and not too large to be run."""
    servers = draw(st.lists(GROUPS, min_size=1, max_size=4))
    balancers = draw(st.integers(1, 6))
    split = draw(st.none() | st.lists(numbers(0.001, 1000), min_size=balancers, max_size=balancers))
    classes = [
        {"name": f"c{index}", **body} for index, body in enumerate(draw(st.lists(CLASSES, min_size=1, max_size=3)))
    ]
    return {
        "name": "any",
        **draw(
            optional(features=st.sampled_from(["off", "basic", "full"]), forwarding=st.sampled_from(["NAT", "GRE"]))
        ),
        "duration": draw(numbers(51, 200)),
        "warmUp": draw(numbers(0, 50)),
        "balancers": {"count": balancers, **({"split": split} if split else {})},
        "servers": servers,
        "arrivals": {**draw(LOADS), **draw(PATTERNS)},
        "classes": classes,
        "disturbances": draw(st.lists(DISTURBANCES, max_size=4)),
    }
