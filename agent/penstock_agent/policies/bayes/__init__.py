"""Bayes filter: learns what each backend can do from how fast its requests end, and schedules by expected delay.

Nobody tells it capacities. The server model is processor sharing with at most one core per request: of x requests at a
backend of speed s and c cores, each progresses at the rate

    h(x) = mu s g(x / c),    g(r) = (1 + r^b)^(-1/b),    b: `bend`,

where mu is the rate at which one request alone ends at an average backend; mu is common to the VIP. The methods are
textbook ones: a Poisson likelihood with a conjugate Gamma prior (A. Gelman et al., "Bayesian Data Analysis", 3rd ed.,
2013, section 2.6), with exponential forgetting (M. West, J. Harrison, "Bayesian Forecasting and Dynamic Models", 2nd
ed., 1997, section 6.3); priors that are estimated from all backends of the VIP (module `posterior`). The index of the
action is that of shortest expected delay, extended by the delay that a request causes to others (K. R. Krishnan,
"Joining the right queue: a state-dependent decision rule", IEEE Transactions on Automatic Control 35(1), 1990).

Load. l is the number of requests in progress that this balancer has at the backend (module `requests` has what is
counted). One of L balancers knows its own part, and estimates the total as

    x = l + (L - 1) (k l + (1 - k) mean(l)),    k: `others_share`, mean over `load_seconds`.

With a shared view x = l + `n_peers`, and the base is one on the flows of all balancers.

Evidence. Of each step of t seconds, request-seconds q = l t and requests that ended d are added to a bin k, decayed
over `memory_seconds`. The log-likelihood is sum_k d_k log h(x_k) - q_k h(x_k), x_k: harmonic mean of x in the bin,
because a busy backend has h in proportion to 1 / x. The bin is that of log x as smoothed *before* the step (width
0.35, linear interpolation between two): the load within a step depends on what ended in it, and bins of that would
show rates that fall with load where they do not. A backend that gets no work although others do forgets faster
(`idle_seconds`): it is tried again. So does one that is faster than believed (`surprise_seconds`): it has recovered.

Fast correction. The log of requests that ended over those expected within about `fast_seconds`, less a threshold in
standard deviations, is added to log s: a noisy neighbor is noticed in seconds.

Action. The index of x requests is the mean, over what the backend may be, of

    I(x) = [sigma(x + 1) + e x (sigma(x + 1) - sigma(x))] / s,    sigma(m) = (1 + (m / c)^p)^(1/p),

e: `externality`, p: `sharpness`. Of what is known of a backend the cautious end is taken (`caution_speed`,
`caution_cores`); one that is not known is taken for an average one, or it would never be tried. The scheduler `sed`
takes it as (l + base) / weight; see module `action`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from penstock_embedded.messages import SchedulerType

from penstock_agent.observation import Observation
from penstock_agent.policies.base import Decision, Policy
from penstock_agent.policies.bayes.action import act
from penstock_agent.policies.bayes.evidence import updated
from penstock_agent.policies.bayes.parameters import OWN, SHARED, Parameters
from penstock_agent.policies.bayes.posterior import posterior
from penstock_agent.policies.bayes.state import BayesState, peers_of, prepared
from penstock_agent.policies.requests import watch

__all__ = ["OWN", "POLICY", "SHARED", "BayesState", "Parameters", "decide", "tuned_policy"]

REFRESH_SECONDS = 1.0
"""Time between two computations of the posterior."""


def decide(
    observation: Observation, state: BayesState | None, own: Parameters = OWN, shared: Parameters = SHARED
) -> tuple[Decision, BayesState]:
    """Estimate every backend and return the scheduler's index at the present load."""
    p = own if peers_of(observation) is None else shared
    work, seen = watch(observation, state.watch if state else None)
    state = prepared(observation, state, work, seen, p)
    if work.seconds > 0:
        state = updated(observation, state, work, p)
        if observation.time - state.refreshed >= REFRESH_SECONDS - 1e-3:
            estimate = posterior(state.evidence, state.estimate, observation.eligible, p)
            state = replace(state, refreshed=observation.time, estimate=estimate)
    return act(observation, state, p), state


def tuned_policy(
    own: Parameters, shared: Parameters | None = None
) -> Callable[[Observation, BayesState | None], tuple[Decision, BayesState]]:
    """Return the filter's decision with other parameters; with a shared view the same ones, if no others are given."""
    return partial(decide, own=own, shared=shared or own)


POLICY = Policy("bayes", SchedulerType.SED, ("fct",), decide, decides_without=True)
