"""Where a dotted key leads in the settings, and which key was meant where it leads nowhere."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Union

from qup.config.fingerprint import hints
from qup.config.schema import Config
from qup.errors import Fault


@dataclasses.dataclass(frozen=True)
class Place:
    """A setting: field `name` of the dataclass `owner`, or below a mapping (`owner` is None there)."""

    kind: Any
    owner: type | None = None
    name: str = ""


def bare(kind: Any) -> Any:
    """A type without its None."""
    if typing.get_origin(kind) in (Union, types.UnionType):
        inner = [one for one in typing.get_args(kind) if one is not type(None)]
        return inner[0] if len(inner) == 1 else Union[tuple(inner)]  # noqa: UP007
    return kind


def locate(key: str) -> Place | str:
    """The place a dotted key names, or the longest part of it that exists ('' where its first word is unknown)."""
    kind: Any = Config
    place = Place(Config)
    found: list[str] = []
    for word in key.split("."):
        kind = bare(kind)
        if dataclasses.is_dataclass(kind):
            owner = typing.cast(type, kind)
            if word not in hints(owner):
                return ".".join(found)
            kind = hints(owner)[word]
            place = Place(kind, owner, word)
        elif typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
            place = Place(kind)
        elif kind is not Any:
            return ".".join(found)
        found.append(word)
    return place


@functools.cache
def leaves(cls: type = Config, prefix: str = "") -> tuple[str, ...]:
    """Every dotted key below a dataclass, sections included; entries of mappings are written `*`."""
    return tuple(_walk(cls, prefix))


def _walk(cls: type, prefix: str) -> Iterator[str]:
    for name, kind in hints(cls).items():
        key = f"{prefix}{name}"
        yield key
        kind = bare(kind)
        if typing.get_origin(kind) is dict:
            key, kind = f"{key}.*", bare(typing.get_args(kind)[1])
        if dataclasses.is_dataclass(kind):
            yield from _walk(typing.cast(type, kind), f"{key}.")


def nearest(word: str, known: Iterable[str], *, n: int = 1) -> list[str]:
    """The known words that look most like `word`; none where nothing does."""
    return difflib.get_close_matches(word, list(known), n=n, cutoff=0.6)


def one_of(word: str, known: Iterable[str]) -> str:
    """`did you mean x? valid: x, y` for a message."""
    known = list(known)
    close = nearest(word, known)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"{meant}valid: {', '.join(known)}" if known else "there is nothing to choose from"


def unknown_key(key: str, value: object, reached: str) -> Fault:
    """The fault of a key that leads nowhere; `reached` is as `locate` returned it."""
    word = key[len(reached) :].lstrip(".").split(".")[0]
    place = locate(reached) if reached else Place(Config)
    owner = bare(place.kind) if isinstance(place, Place) else Config
    if not dataclasses.is_dataclass(owner):
        return Fault(key, value, f"unknown key: {reached} has nothing below it")
    prefix = f"{reached}." if reached else ""
    siblings = list(hints(typing.cast(type, owner)))
    close = nearest(word, siblings)
    elsewhere = [leaf for leaf in leaves() if leaf.rpartition(".")[2] == word and "*" not in leaf]
    if close:
        rest = key[len(prefix) + len(word) :]
        whole = f"{prefix}{close[0]}{rest}"
        meant = f"did you mean {whole if isinstance(locate(whole), Place) else prefix + close[0]}?"
    elif elsewhere:
        meant = f"did you mean {' or '.join(elsewhere[:3])}?"
    else:
        meant = f"{reached or 'the configuration'} has {', '.join(siblings)}"
    return Fault(key, value, f"unknown key; {meant}")


def counted(faults: Sequence[Fault], cells: int) -> list[Fault]:
    """Each distinct fault once, saying how many of several cells have it."""
    counts: dict[tuple[str, str, str], int] = {}
    first: dict[tuple[str, str, str], Fault] = {}
    for fault in faults:
        key = (fault.key, repr(fault.value), fault.valid)
        counts[key] = counts.get(key, 0) + 1
        first.setdefault(key, fault)
    if cells == 1:
        return list(first.values())
    return [Fault(fault.key, fault.value, f"{fault.valid} [{counts[key]} of {cells} cells]") for key, fault in first.items()]


def range_in_words(above: float | None, at_least: float | None, at_most: float | None) -> str:
    """`above 0 and at most 1` and the like; '' without a limit."""
    parts = [f"above {above:g}"] if above is not None else []
    parts += [f"at least {at_least:g}"] if at_least is not None else []
    parts += [f"at most {at_most:g}"] if at_most is not None else []
    return " and ".join(parts)
