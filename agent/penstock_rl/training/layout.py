"""Layout: what a network must know of its environment before it is made."""

from __future__ import annotations

from dataclasses import dataclass, replace


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


def visible(layout: Layout, groups: tuple[str, ...]) -> Layout:
    """Leave the features of some groups; without `groups`, all. Raises ValueError where a group is not known."""
    if unknown := [group for group in groups if group not in layout.groups]:
        raise ValueError(f"network.featureGroups: {unknown[0]!r} is not known; use {', '.join(layout.groups)}")
    if not groups:
        return layout
    return replace(layout, features=tuple(name for name in layout.features if group_of(name) in groups))


def group_of(feature: str) -> str:
    """Return the group of a feature: the part of its name before the slash."""
    return feature.partition("/")[0]
