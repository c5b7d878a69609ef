"""Layout: what a network must know of its environment before it is made."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_rl.recipes import RecipeError


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of the columns of features and of the truth, and the largest sizes."""

    features: tuple[str, ...]  # "group/name"
    truth: tuple[str, ...]
    balancers: int
    slots: int

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of features in the order in which they first appear."""
        return tuple(dict.fromkeys(map(group_of, self.features)))

    @property
    def group_index(self) -> tuple[int, ...]:
        """Index of its group, by feature."""
        order = {group: index for index, group in enumerate(self.groups)}
        return tuple(order[group_of(name)] for name in self.features)


def of_groups(names: tuple[str, ...], groups: tuple[str, ...]) -> tuple[str, ...]:
    """Return the features of some groups; without `groups`, all. Raises RecipeError where a group is not known."""
    known = dict.fromkeys(map(group_of, names))
    if unknown := [group for group in groups if group not in known]:
        raise RecipeError(f"network.featureGroups: {unknown[0]!r} is not known; use {', '.join(known)}")
    return tuple(name for name in names if not groups or group_of(name) in groups)


def group_of(feature: str) -> str:
    """Return the group of a feature: the part of its name before the slash."""
    return feature.partition("/")[0]
