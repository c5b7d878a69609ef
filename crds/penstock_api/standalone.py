"""What `penstock run` serves of the objects in files; `penstock validate` applies the same rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from penstock_api.dataplane import DataPlane
from penstock_api.files import FileObject, Problem, Reading
from penstock_api.vip import LoadBalancerVIP

Identity = tuple[str, str]  # kind, and name with its namespace


class Served(NamedTuple):
    """Objects that are served, and what is wrong with the files."""

    objects: tuple[FileObject, ...]
    problems: tuple[Problem, ...]

    @property
    def data_plane(self) -> DataPlane | None:
        """The one DataPlane, where there is one."""
        return next((each.obj for each in self.objects if isinstance(each.obj, DataPlane)), None)

    @property
    def error(self) -> str:
        """All problems, a line for each."""
        return "\n".join(each.text for each in self.problems)


def select(reading: Reading, kept: Mapping[Identity, FileObject] | None = None) -> Served:
    """Choose what is served: each good object, and of those that went bad their last good state, `kept`.

    Where a file cannot be read to its end, all objects that it had are taken to have gone bad.
    """
    kept = kept or {}
    refused = [problem for each in reading.objects for problem in _refusals(each)]
    bad = {problem.identity for problem in refused}
    good = {each.identity: each for each in reading.objects if each.identity not in bad}
    problems = [*reading.problems, *refused]
    for identity, each in kept.items():
        if identity not in good and any(_concerns(problem, each) for problem in problems):
            good[identity] = each
    extra = list(_second_data_planes(good, kept))
    for problem in extra:
        assert problem.identity is not None  # noqa: S101 - of an object
        del good[problem.identity]
    return Served(tuple(good.values()), (*problems, *extra))


def _concerns(problem: Problem, each: FileObject) -> bool:
    return problem.file == each.file and problem.identity in (None, each.identity)


def _refusals(each: FileObject) -> Iterator[Problem]:
    vip = each.obj
    if not isinstance(vip, LoadBalancerVIP):
        return
    if vip.spec.addresses is None:
        yield _problem(each, "spec.addresses: is required in files; list the VIP's addresses")
    if vip.spec.backends.service is not None:
        text = "spec.backends.service: there are no Services without Kubernetes; list spec.backends.endpoints"
        yield _problem(each, text)


def _second_data_planes(good: Mapping[Identity, FileObject], kept: Iterable[Identity]) -> Iterator[Problem]:
    planes = [each for each in good.values() if isinstance(each.obj, DataPlane)]
    planes.sort(key=lambda each: each.identity not in kept)  # the one that was served stays
    for each in planes[1:]:
        yield _problem(
            each, f"a second DataPlane beside {planes[0].where}; one process is one DataPlane: remove either"
        )


def _problem(each: FileObject, text: str) -> Problem:
    kind, key = each.identity
    return Problem(each.file, f"{each.where}: {kind} {key}: {text}", each.identity)
