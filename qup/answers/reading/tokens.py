"""A tidied answer as a tree of tokens: nothing is dropped, and brackets keep their kind."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias


class Unreadable(Exception):
    """What an answer means is not certain; the message says why."""


@dataclass(frozen=True)
class Token:
    """One token. kind: number, word (letters), command (a LaTeX macro), text (what \\text{} holds), sign."""

    kind: str
    text: str
    spaced: bool = False
    """Whether a blank stands before it."""
    start: int = 0
    """Where it begins in the text."""


@dataclass(frozen=True)
class Group:
    """What stands between two brackets; an environment's brackets are \\begin{…} and \\end{…}."""

    opening: str
    items: tuple[Item, ...]
    closing: str
    spaced: bool = False
    start: int = 0


Item: TypeAlias = Token | Group

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+(?:\.[0-9]+|\.(?=[^0-9.a-zA-Z]|$))?|\.[0-9]+)(?:[eE](?=[+-]?[0-9])[+-]?[0-9]+(?![0-9A-Za-z.]))?)"
    r"|\\begin ?\{(?P<begin>[a-z]+\*?)\}|\\end ?\{(?P<end>[a-z]+\*?)\}"
    r"|\\(?:text|textrm|textbf|textit|textsf|texttt|mathrm|mathsf|mathtt|mathit|mbox|hbox|operatorname\*?) ?\{(?P<text>[^{}]*)\}"
    r"|(?P<command>\\(?:[A-Za-z]+|.))"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<sign>'+|\*\*|<=|>=|!=|==|:=|\.\.\.+|[-+*/^_=<>!,;:|&%$\"`?@#.£€¥¢])"
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])"
    r"|(?P<other>.)",
    re.DOTALL,
)
_ESCAPED = {"\\{": "\\{", "\\}": "\\}", "\\lbrace": "\\{", "\\rbrace": "\\}", "\\lbrack": "[", "\\rbrack": "]"}
_FENCES = {"\\langle": "\\rangle", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil", "\\lvert": "\\rvert", "\\lVert": "\\rVert"}
_OPEN = {"(": ")]", "[": "])", "{": "}", "\\{": ("\\}",), **{left: (right,) for left, right in _FENCES.items()}}
_CLOSE = {")", "]", "}", "\\}", *_FENCES.values()}
_COMMAS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?!,?[0-9])")
_BLANKS = re.compile(r"(?<![0-9.,^_}] )(?<![0-9.,^_])[0-9]{1,3}(?: [0-9]{3})+(?! ?[0-9])")
_DEEPEST = 60


def tree(text: str) -> tuple[Item, ...]:
    """The items of a tidied text. Raises Unreadable where brackets do not close or a character is none of mathematics."""
    text = joined_thousands(text)
    stack: list[tuple[str, bool, int, list[Item]]] = [("", False, 0, [])]
    position, spaced = 0, False
    while position < len(text):
        if text[position].isspace():
            spaced, position = True, position + 1
            continue
        match = _TOKEN.match(text, position)
        assert match is not None
        start, position = position, match.end()
        kind = match.lastgroup or ""
        piece = match[kind]
        if kind == "command":
            piece = _ESCAPED.get(piece, piece)
        if kind == "begin" or (kind in ("open", "command") and piece in _OPEN):
            if len(stack) > _DEEPEST:
                raise Unreadable(f"brackets nest deeper than {_DEEPEST}")
            stack.append((f"\\begin{{{piece}}}" if kind == "begin" else piece, spaced, start, []))
        elif kind == "end" or (kind in ("close", "command") and piece in _CLOSE):
            opening, before, where, items = stack.pop()
            closing = f"\\end{{{piece}}}" if kind == "end" else piece
            fits = opening == f"\\begin{{{piece}}}" if kind == "end" else closing in _OPEN.get(opening, ())
            if not stack or not fits:
                raise Unreadable(f"{closing} closes nothing that was opened")
            stack[-1][3].append(Group(opening, tuple(items), closing, before, where))
        elif kind == "other":
            raise Unreadable(f"{piece!r} is no sign of mathematics that is known here")
        else:
            stack[-1][3].append(Token(kind, piece.strip() if kind == "text" else piece, spaced, start))
        spaced = False
    if len(stack) > 1:
        raise Unreadable(f"{stack[-1][0]} is never closed")
    return tuple(stack[0][3])


def joined_thousands(text: str) -> str:
    """The text without thousands separators.

    A comma followed by exactly three digits is one outside lists; within brackets only where other commas have blanks
    after them, or where the three digits begin with 0.
    """
    if "," in text:
        listing = ", " in text
        depth = _depths(text)
        text = _COMMAS.sub(lambda m: m[0].replace(",", "") if not depth[m.start()] or listing or _zeros(m[0]) else m[0], text)
    return _BLANKS.sub(lambda m: m[0].replace(" ", ""), text)


def _zeros(number: str) -> bool:
    return any(part.startswith("0") for part in number.split(",")[1:])


def _depths(text: str) -> list[int]:
    """How many list brackets are open at each character: round, square and \\{."""
    depths, depth = [], 0
    for position, character in enumerate(text):
        escaped = position > 0 and text[position - 1] == "\\"
        depths.append(depth)
        if character in "([" or (character == "{" and escaped):
            depth += 1
        elif character in ")]" or (character == "}" and escaped):
            depth -= 1
    return depths


def literal(items: tuple[Item, ...]) -> str:
    """The items as text without blanks, for names and messages."""
    return "".join(
        f"{item.opening}{literal(item.items)}{item.closing}" if isinstance(item, Group) else item.text.replace(" ", "") for item in items
    )


def is_sign(item: Item | None, *texts: str) -> bool:
    """Whether the item is one of these signs or commands."""
    return isinstance(item, Token) and item.kind in ("sign", "command") and item.text in texts


def split(items: tuple[Item, ...], *signs: str) -> list[tuple[Item, ...]]:
    """The items between these signs."""
    parts: list[list[Item]] = [[]]
    for item in items:
        if is_sign(item, *signs):
            parts.append([])
        else:
            parts[-1].append(item)
    return [tuple(part) for part in parts]
