"""RLB-SAC, the learned policy of Aquarius, as a baseline.

Z. Yao, Y. Desmouceaux, J.-A. Cordero-Fuertes, M. Townsley, T. Clausen, "Aquarius: Enable Fast, Scalable, Data-Driven
Service Management in the Cloud", IEEE Transactions on Network and Service Management 19(4), 2022.

What is theirs: soft actor-critic on counts and on reductions of durations, weights alone, SED below, a reward of
fairness (`environment.reward: jain-load`), no memory, critics that see what the actor sees, absolute weights
(`environment.anchor: equal`). What is ours: the network treats all backends alike, so that one model fits any number.
"""

from __future__ import annotations

from penstock_rl.algorithms.sac_gru import SacLearner


class RlbLearner(SacLearner):
    """SAC without memory, truth and base; `Recipe.feature_groups` leaves the features of Aquarius."""

    @property
    def memory(self) -> bool:
        """A policy of the current observation."""
        return False

    def gains(self) -> tuple[float, float]:
        """Weights alone."""
        return self.recipe.network.weight_limit, 0.0


LEARNER = RlbLearner
