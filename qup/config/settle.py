"""What follows from a cell's settings before it is judged: its arm, its seeds, its study's name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from qup.config.once import Once
from qup.config.schema import STREAMS, Config, Oracle, Refinement, Reward, Source, Stream, Study, Vllm
from qup.config.schema.choices import UNPOOLED
from qup.errors import Fault

BASE = "base"
"""The stream of the untuned student: no source, no refinement, no training."""


class Settler:
    """Settles cells of one grid; equal settings come out as the same object, so that a grid shares them."""

    def __init__(self, study_name: str) -> None:
        self._study_name = study_name
        self._once = Once()

    def settle(self, cell: Config) -> tuple[Config, list[Fault]]:
        """The cell with arm, seeds and study name filled in, and what contradicts itself in its arm."""
        stream, source, refinement, faults = self._once(settle_arm, cell.stream, cell.source, cell.refinement)
        own, every = cell.seed, cell.study.seed
        trainer = self._seeded(cell.trainer, own, every)
        settled = replace(
            cell,
            stream=stream,
            source=source,
            refinement=refinement,
            rollouts=self._once(_backed_sampling, self._seeded_sampling(cell.rollouts, every, None), cell.vllm),
            selection=self._seeded(cell.selection, every, None),
            oracle=self._seeded(cell.oracle, every, None),
            teacher=self._once(_seed_each, cell.teacher, every),
            judge=self._seeded(cell.judge, every, None),
            retention=self._seeded(cell.retention, every, None),
            trainer=trainer,
            evaluation=self._once(_backed_sampling, self._seeded_sampling(cell.evaluation, own, every), cell.vllm),
            reward=self._once(_backed_rewards, cell.reward, cell.vllm),
            study=self._once(_named, cell.study, self._study_name),
            seed=trainer.seed if own is None else own,
        )
        return settled, list(faults)

    def _seeded(self, section: Any, *seeds: int | None) -> Any:
        return self._once(_seed, section, *seeds)

    def _seeded_sampling(self, section: Any, *seeds: int | None) -> Any:
        return self._once(_seed_sampling, section, *seeds)


def settle_arm(stream: Stream, source: Source, refinement: Refinement) -> tuple[Stream, Source, Refinement, tuple[Fault, ...]]:
    """Preset and free axes brought together.

    A preset fills what is left open and is contradicted by nothing; without one, the name follows from the
    pair; with nothing given at all the arm is slm_rft.
    """
    faults: list[Fault] = []
    if stream.name == BASE:
        pair = ("none", "none")
    elif stream.source or stream.refinement:
        pair = (stream.source or source.name or "student", stream.refinement or refinement.name or "none")
    else:
        pair = (source.name or "student", refinement.name or "none")
        expected = STREAMS.get(stream.name)
        if expected is not None and expected != pair:
            meaning = f"{stream.name} is source={expected[0]} refinement={expected[1]}; this is source={pair[0]} refinement={pair[1]}"
            faults.append(Fault("stream.name", stream.name, meaning))
    for key, given, meant in (("source", source.name, pair[0]), ("refinement", refinement.name, pair[1])):
        if given and given != meant:
            faults.append(Fault(key, given, f"contrary to stream={stream.name}, which is {key}={meant}; leave one of the two out"))
    named = {known: name for name, known in STREAMS.items()}
    arm = named.get(pair, f"{pair[0]}_{pair[1]}")
    if source.teacher:
        arm = f"teacher:{source.teacher}" if pair[1] == "none" else f"{arm}:{source.teacher}"
    name = stream.name or arm
    return (
        replace(stream, name=name, source=pair[0], refinement=pair[1]),
        replace(source, name=pair[0]),
        replace(refinement, name=pair[1]),
        tuple(faults),
    )


def default_study_name(experiments: Iterable[str | None], now: datetime) -> str:
    """The experiments' names, joined, with / as -; the date and time where there is none."""
    named = dict.fromkeys(name for name in experiments if name)
    return "+".join(name.replace("/", "-") for name in named) or now.strftime("%Y-%m-%d_%H-%M-%S")


def _named(study: Study, name: str) -> Study:
    return study if study.name else replace(study, name=name)


def _seed(section: Any, *seeds: int | None) -> Any:
    """The section with the first seed that is set: its own, then those given, then 0."""
    if section.seed is not None:
        return section
    return replace(section, seed=next((seed for seed in seeds if seed is not None), 0))


def _seed_each(sections: dict[str, Oracle], *seeds: int | None) -> dict[str, Oracle]:
    """Each section seeded, and named as it is listed."""
    return {name: replace(_seed(section, *seeds), name=name) for name, section in sections.items()}


def _seed_sampling(section: Any, *seeds: int | None) -> Any:
    sampling = _seed(section.sampling, *seeds)
    return section if sampling is section.sampling else replace(section, sampling=sampling)


def _backed_sampling(section: Any, vllm: Vllm) -> Any:
    """The section with the backend that `auto` comes to: vllm where it is said what starts it."""
    if section.sampling.backend != "auto":
        return section
    return replace(section, sampling=replace(section.sampling, backend="vllm" if vllm.command else "transformers"))


def _backed_rewards(rewards: dict[str, Reward], vllm: Vllm) -> dict[str, Reward]:
    """As `_backed_sampling`; what no pooling server can score is scored in process."""

    def backend(reward: Reward) -> str:
        served = reward.base_url or (vllm.command and reward.lab is None)
        return "vllm" if served and reward.format not in UNPOOLED else "transformers"

    return {name: replace(reward, backend=backend(reward)) if reward.backend == "auto" else reward for name, reward in rewards.items()}
