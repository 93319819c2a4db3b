"""Which stages go to SLURM as one array, and what each waits for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qup.config.fingerprint import digest, plain
from qup.launch.plan import Planned
from qup.pipeline.graph import Ref
from qup.pipeline.kinds import KINDS


@dataclass(frozen=True)
class Unit:
    """One SLURM task: a stage, or one worker's share of a wide one."""

    ref: Ref
    worker: int | None = None
    workers: int = 1


@dataclass
class Batch:
    """One sbatch call: a single job, or an array in the order of `units`."""

    kind: str
    units: list[Unit]
    after: list[tuple[Batch, int | None]] = field(default_factory=list)
    """Batches, or single members of them, that must have succeeded."""
    after_jobs: list[str] = field(default_factory=list)
    """Jobs already in the queue that must have succeeded."""
    each_after: Batch | None = None
    """An array of the same length: member i waits for its member i."""
    planned: Planned | None = None


@dataclass(frozen=True)
class _Place:
    """Where a stage's result will come from."""

    batch: Batch
    index: int | None


def _direct(ref: Ref, planned: Mapping[Ref, Planned], missing: Mapping[Ref, frozenset[Ref]], above: dict[Ref, frozenset[Ref]]) -> list[Ref]:
    """Missing parents that no other missing parent already waits for."""
    parents = missing[ref]
    implied = frozenset().union(*(above[parent] for parent in parents)) if parents else frozenset()
    above[ref] = parents | implied
    return [parent for parent in planned[ref].node.parents if parent in parents and parent not in implied]


def make_batches(known: Mapping[Ref, Planned], queued: Mapping[Ref, str], max_array: int) -> list[Batch]:
    """Batches in submission order. `queued` maps stages already in the queue to their job ids.

    Stages of one kind and equal resources become one array where they wait for the same jobs, or for the
    members of one other array index by index; the rest are single jobs. Arrays have at most `max_array` tasks, SLURM's MaxArraySize, of which 0 and 1 mean none at all.
    """
    missing: dict[Ref, frozenset[Ref]] = {}
    above: dict[Ref, frozenset[Ref]] = {}
    direct: dict[Ref, list[Ref]] = {}
    for ref, planned in known.items():
        missing[ref] = frozenset(dict.fromkeys(parent for parent in planned.node.parents if parent in known or parent in queued))
    for ref in known:
        for parent in missing[ref]:
            above.setdefault(parent, frozenset())
        direct[ref] = _direct(ref, known, missing, above)
    placed: dict[Ref, _Place] = {}
    batches: list[Batch] = []
    for level in _levels(known, direct):
        groups: dict[Any, list[Ref]] = {}
        for ref in level:
            groups.setdefault(_group(ref, known[ref], direct[ref], placed, queued), []).append(ref)
        for refs in groups.values():
            batches.extend(_batch(refs, known, direct, placed, queued, max(1, max_array)))
    return batches


def _levels(known: Mapping[Ref, Planned], direct: Mapping[Ref, list[Ref]]) -> list[list[Ref]]:
    depth: dict[Ref, int] = {}
    levels: list[list[Ref]] = []
    for ref in known:
        depth[ref] = 1 + max((depth[parent] for parent in direct[ref] if parent in depth), default=-1)
        while len(levels) <= depth[ref]:
            levels.append([])
        levels[depth[ref]].append(ref)
    return levels


def _group(ref: Ref, planned: Planned, parents: Sequence[Ref], placed: Mapping[Ref, _Place], queued: Mapping[Ref, str]) -> Any:
    """What stages must share to be one array, apart from the array whose members they may follow one by one."""
    kind = (ref.kind, digest(plain(planned.resources)), KINDS[ref.kind].sharded and planned.resources.workers > 1)
    if kind[2]:
        return (*kind, ref)
    members = [parent for parent in parents if parent in placed and placed[parent].index is not None]
    if len(members) == 1:
        others = frozenset(parent for parent in parents if parent != members[0])
        return (*kind, others, id(placed[members[0]].batch))
    return (*kind, frozenset(parents))


def _batch(
    refs: Sequence[Ref],
    known: Mapping[Ref, Planned],
    direct: Mapping[Ref, list[Ref]],
    placed: dict[Ref, _Place],
    queued: Mapping[Ref, str],
    max_array: int,
) -> list[Batch]:
    first = known[refs[0]]
    if KINDS[refs[0].kind].sharded and first.resources.workers > 1:
        return [batch for ref in refs for batch in _wide(ref, known[ref], direct[ref], placed, queued, max_array)]
    made = []
    for chunk, leader in _chunks(refs, direct, placed, max_array):
        batch = Batch(refs[0].kind, [Unit(ref) for ref in chunk], planned=first, each_after=leader)
        parents = direct[chunk[0]]
        if leader is not None:
            parents = [parent for parent in parents if placed.get(parent) is None or placed[parent].batch is not leader]
        _wait_for(batch, parents, placed, queued)
        for index, ref in enumerate(chunk):
            placed[ref] = _Place(batch, index if len(chunk) > 1 else None)
        made.append(batch)
    return made


def _chunks(
    refs: Sequence[Ref], direct: Mapping[Ref, list[Ref]], placed: Mapping[Ref, _Place], max_array: int
) -> list[tuple[list[Ref], Batch | None]]:
    """Cuts a group into arrays: rounds that follow one array member by member, singles where that fails."""
    members = {
        ref: next((placed[parent] for parent in direct[ref] if parent in placed and placed[parent].index is not None), None) for ref in refs
    }
    if not any(members.values()):
        return [(list(refs[start : start + max_array]), None) for start in range(0, len(refs), max_array)]
    if len({frozenset(direct[ref]) for ref in refs}) == 1:
        return [(list(refs[start : start + max_array]), None) for start in range(0, len(refs), max_array)]
    leader = next(place for place in members.values() if place is not None).batch
    rounds: list[dict[int, Ref]] = []
    for ref in refs:
        place = members[ref]
        assert place is not None and place.index is not None
        for one in rounds:
            if place.index not in one:
                one[place.index] = ref
                break
        else:
            rounds.append({place.index: ref})
    cut: list[tuple[list[Ref], Batch | None]] = []
    for one in rounds:
        if len(one) == len(leader.units):
            cut.append(([one[index] for index in range(len(leader.units))], leader))
        else:
            cut.extend(([ref], None) for ref in one.values())
    return cut


def _wait_for(batch: Batch, parents: Sequence[Ref], placed: Mapping[Ref, _Place], queued: Mapping[Ref, str]) -> None:
    for parent in parents:
        if parent in placed:
            batch.after.append((placed[parent].batch, placed[parent].index))
        elif parent in queued:
            batch.after_jobs.append(queued[parent])


def _wide(
    ref: Ref, planned: Planned, parents: Sequence[Ref], placed: dict[Ref, _Place], queued: Mapping[Ref, str], max_array: int
) -> list[Batch]:
    """A wide stage: an array of workers, and one merge behind it."""
    workers = min(planned.resources.workers, max_array)
    array = Batch(ref.kind, [Unit(ref, index, workers) for index in range(workers)], planned=planned)
    _wait_for(array, parents, placed, queued)
    merge = Batch(ref.kind, [Unit(ref)], after=[(array, None)], planned=planned)
    placed[ref] = _Place(merge, None)
    return [array, merge]
