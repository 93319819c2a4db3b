"""Reads tokens as one mathematical expression. What could be read in two ways is not read at all.

A node is a tuple, its kind first:
("num", Fraction), ("sym", name), ("const", "pi" | "e" | "i" | "oo"), ("add", *nodes), ("mul", *nodes), ("pow", base, exponent),
("root", degree, node), ("fn", name, *nodes), ("pm", node), ("mp", node), and ("sum" | "prod" | "int", variable, low, high, body), ("lim",
variable, point, body). Names keep their case, primes, subscripts, accents and what they are applied to; a derivative is a name.
"""

from __future__ import annotations

import re
from fractions import Fraction

from qup.answers.reading.cursor import Cursor
from qup.answers.reading.derivatives import derivative_of
from qup.answers.reading.functions import read_function
from qup.answers.reading.names import read_named, subscript
from qup.answers.reading.numerals import is_fraction, mixed_number, number, repeated
from qup.answers.reading.operators import read_operator
from qup.answers.reading.tokens import Group, Item, Token, Unreadable, is_sign, literal, split
from qup.answers.reading.vocabulary import (
    ACCENTS,
    ALIASES,
    CONSTANTS,
    DEGREE_FACTOR,
    DIVIDED,
    FUNCTIONS,
    LETTERS,
    STYLES,
    TIMES,
    Node,
)


def read_expression(items: tuple[Item, ...]) -> Node:
    """The expression that the items are as a whole. Raises Unreadable where that is not certain."""
    for position, item in enumerate(items):
        if is_sign(item, "\\choose", "\\over"):
            above, below = read_expression(items[:position]), read_expression(items[position + 1 :])
            return ("fn", "binomial", above, below) if is_sign(item, "\\choose") else ("mul", above, ("pow", below, ("num", Fraction(-1))))
    reader = Reader(items)
    node = reader.sum()
    if reader.rest:
        raise Unreadable(f"{literal(tuple(reader.rest))!r} is left over")
    return node


class Reader(Cursor):
    """Takes items from the front."""

    def sum(self) -> Node:
        terms: list[Node] = []
        while True:
            sign = self.peek()
            minus = plus = False
            while is_sign(sign, "+", "-", "\\pm", "\\mp"):
                assert isinstance(sign, Token)
                self.take()
                if sign.text in ("\\pm", "\\mp"):
                    terms.append((sign.text[1:], self.product()))
                    break
                minus, plus = minus ^ (sign.text == "-"), True
                sign = self.peek()
            else:
                if terms and not plus:
                    raise Unreadable("two terms without a sign between them")
                term = self.product()
                terms.append(("mul", ("num", Fraction(-1)), term) if minus else term)
            if not is_sign(self.peek(), "+", "-", "\\pm", "\\mp"):
                return terms[0] if len(terms) == 1 else ("add", *terms)

    def whole(self, items: tuple[Item, ...]) -> Node:
        return read_expression(items)

    def product(self) -> Node:
        factors = [self.factor()]
        divided = False
        while (item := self.peek()) is not None and not is_sign(item, "+", "-", "\\pm", "\\mp"):
            if is_sign(item, *TIMES):
                self.take()
                divided = False
                factors.append(self._signed())
            elif is_sign(item, *DIVIDED):
                self.take()
                below = self.peek()
                if isinstance(below, Token) and below.kind == "word" and len(below.text) > 1 and below.text.isupper():
                    self.take()
                    bottom: Node = ("mul", *[("sym", letter) for letter in below.text])
                    divided = True
                else:
                    bottom = self._signed()
                    after = self.peek()
                    spaced = after is not None and after.spaced and isinstance(below, Token) and not below.spaced
                    divided = not (spaced and factors[-1][0] == bottom[0] == "num")
                factors.append(("pow", bottom, ("num", Fraction(-1))))
            elif is_sign(item, "\\bmod"):
                self.take()
                before = factors[0] if len(factors) == 1 else ("mul", *factors)
                factors = [("fn", "mod", before, self._signed())]
            elif isinstance(item, Token) and item.kind == "sign" and item.text not in ("|",):
                break
            else:
                if divided:
                    raise Unreadable("a product after a slash may be above or below it")
                before, text = factors[-1], item
                if isinstance(item, Token) and item.kind == "number" and before[0] not in ("pow", "root", "fn"):
                    raise Unreadable("two numbers side by side")
                mixed = before[0] == "num" and is_sign(item, "\\frac")
                following = self.factor()
                if mixed and is_fraction(following):
                    factors[-1] = mixed_number(before, following, text)
                else:
                    factors.append(following)
        return factors[0] if len(factors) == 1 else ("mul", *factors)

    def _signed(self) -> Node:
        minus = False
        while is_sign(self.peek(), "-", "+"):
            minus ^= is_sign(self.take(), "-")
        node = self.factor()
        return ("mul", ("num", Fraction(-1)), node) if minus else node

    def factor(self) -> Node:
        node = self.atom()
        while True:
            item = self.peek()
            if is_sign(item, "^", "**"):
                self.take()
                exponent = self.argument(script=True)
                if exponent is None:
                    node = ("mul", node, DEGREE_FACTOR)
                elif is_sign(self.peek(), "^", "**"):
                    raise Unreadable("a power of a power without brackets")
                else:
                    node = ("pow", node, exponent)
            elif is_sign(item, "!"):
                self.take()
                if is_sign(self.peek(), "!"):
                    raise Unreadable("a double factorial")
                node = ("fn", "factorial", node)
            elif is_sign(item, "\\degree", "\\degrees") or (
                isinstance(item, Token) and item.text in ("degrees", "degree") and node[0] != "sym"
            ):
                self.take()
                node = ("mul", node, DEGREE_FACTOR)
            elif isinstance(item, Token) and item.kind == "sign" and item.text.startswith("'"):
                raise Unreadable("a prime after an expression")
            elif is_sign(item, "%", "\\%"):
                raise Unreadable("a percentage within an expression")
            else:
                return node

    def argument(self, script: bool = False) -> Node | None:
        """What a macro or a ^ takes: a braced group, else one token, of a number its first digit after a macro. None is a degree sign."""
        item = self.take()
        if isinstance(item, Group):
            if item.opening == "{":
                if script and literal(item.items) in ("\\circ", "\\degree"):
                    return None
                return read_expression(item.items)
            return _bracketed(item)
        if script and is_sign(item, "\\circ"):
            return None
        if script and is_sign(item, "-", "+"):
            node = self.argument(script=True)
            return ("mul", ("num", Fraction(-1)), node) if item.text == "-" and node else node
        if item.kind == "number":
            if script or len(item.text) == 1:
                return ("num", number(item.text))
            self.rest.insert(0, Token("number", item.text[1:], False))
            return ("num", number(item.text[0]))
        if script and item.kind in ("word", "command"):
            self.rest.insert(0, item)
            return self.atom(single=True)
        self.rest.insert(0, item)
        return self.atom(single=True)

    def need(self) -> Node:
        node = self.argument()
        if node is None:
            raise Unreadable("a degree sign where a value is needed")
        return node

    def atom(self, single: bool = False) -> Node:
        item = self.take()
        if isinstance(item, Group):
            return _bracketed(item)
        if item.kind == "number":
            if is_sign(self.peek(), "\\overline", "\\bar", "\\dot") and "." in item.text:
                self.take()
                return repeated(item.text, self.take())
            return ("num", number(item.text))
        if item.kind == "word":
            return self._word(item, single)
        if item.kind == "text":
            return self._quoted(item)
        if item.text == "|":
            return self._absolute()
        if item.text == "_" and isinstance(self.peek(), Group):
            raise Unreadable("a subscript before its name")
        if item.kind != "command":
            raise Unreadable(f"{item.text!r} stands where a value is needed")
        return self._command(item.text[1:], item)

    def _word(self, item: Token, single: bool) -> Node:
        text = item.text
        if single and len(text) > 1:
            self.rest.insert(0, Token("word", text[1:], False, item.start))
            return self._name(text[0])
        if len(text) == 1:
            return self._name(text)
        if text in CONSTANTS:
            return CONSTANTS[text]
        if text == "sqrt":
            return ("root", 2, self.need())
        if text == "cbrt":
            return ("root", 3, self.need())
        name = ALIASES.get(text, text)
        if name in FUNCTIONS or name in ("abs", "factorial", "floor", "ceil"):
            return read_function(self, name)
        if text == "np" and is_sign(self.peek(), "."):
            self.take()
            return self.atom()
        for prefix in ("pi", *sorted(FUNCTIONS, key=len, reverse=True)):
            if (
                len(prefix) > 1
                and text.startswith(prefix)
                and prefix not in ("Re", "Im", "sec", "min", "max", "det")
                and len(text) == len(prefix) + 1
            ):
                self.rest.insert(0, Token("word", text[len(prefix) :], False, item.start))
                return self._word(Token("word", prefix), False)
        if isinstance(following := self.peek(), Group) and following.opening == "(":
            for name in FUNCTIONS:
                if 1 < len(name) < len(text) <= len(name) + 2 and text.endswith(name):
                    self.rest.insert(0, Token("word", name, False, item.start))
                    return self._word(Token("word", text[: -len(name)], item.spaced, item.start), False)
        if len(text) > 4 and not text.isupper():
            raise Unreadable(f"{text!r} is a word")
        self.rest[:0] = [Token("word", letter, False, item.start) for letter in text[1:]]
        return self._name(text[0])

    def _quoted(self, item: Token) -> Node:
        """What \\text{} or \\mathrm{} holds: a name of its own, a function or a constant."""
        text = item.text
        if len(text) == 1 or text in CONSTANTS or ALIASES.get(text, text) in FUNCTIONS:
            return self._word(Token("word", text), False)
        if not text:
            raise Unreadable("an empty text")
        return read_named(self, f'"{text}"')

    def _name(self, letter: str) -> Node:
        if letter == "e" and not is_sign(self.peek(), "_"):
            return ("const", "e")
        if letter == "i" and not is_sign(self.peek(), "_"):
            return ("const", "i")
        return read_named(self, letter)

    def _absolute(self) -> Node:
        inside: list[Item] = []
        while self.rest and not is_sign(self.rest[0], "|"):
            inside.append(self.take())
        self.take()
        return ("fn", "abs", read_expression(tuple(inside)))

    def _command(self, name: str, item: Token) -> Node:
        if name == "frac":
            return self._fraction()
        if name == "sqrt":
            degree: Node = ("num", Fraction(2))
            following = self.peek()
            if isinstance(following, Group) and following.opening == "[":
                self.take()
                degree = read_expression(following.items)
            if degree[0] != "num" or degree[1].denominator != 1 or not 1 <= degree[1] <= 1000:
                return ("pow", self.need(), ("pow", degree, ("num", Fraction(-1))))
            return ("root", int(degree[1]), self.need())
        if name in ("binom", "choose"):
            return ("fn", "binomial", self.need(), self.need())
        if name in ("overline", "bar") and isinstance(self.peek(), Group) and literal((self.peek(),)).strip("{}").isdigit():  # type: ignore[arg-type]
            raise Unreadable("a line over digits")
        if name in ("pi", "infty"):
            return ("const", "pi" if name == "pi" else "oo")
        if name in ("lvert", "left|"):
            return self._absolute()
        if name in ALIASES or name in FUNCTIONS:
            return read_function(self, ALIASES.get(name, name))
        if name in ("dot", "ddot", "dddot"):
            moved = self.take()
            inner = literal(moved.items if isinstance(moved, Group) else (moved,))
            return read_named(self, f"{inner}{subscript(self)}~t{len(name) - 2}")
        if name in ACCENTS:
            inner_item = self.take()
            if name in ("overline", "bar") and isinstance(inner_item, Group) and re.search(r"[0-9+*/-]", literal(inner_item.items)):
                return ("fn", "conj", read_expression(inner_item.items))
            name = {"overrightarrow": "vec", "widehat": "hat", "widetilde": "tilde", "bar": "overline"}.get(name, name)
            inside = literal(inner_item.items if isinstance(inner_item, Group) else (inner_item,))
            if name in ("hat", "vec") and inside.removeprefix("\\") in ("i", "j", "k", "imath", "jmath"):
                return read_named(self, f"\\vector{{{inside.removeprefix(chr(92))[0]}}}")
            return read_named(self, f"\\{name}{{{literal(inner_item.items if isinstance(inner_item, Group) else (inner_item,))}}}")
        if name in STYLES:
            bold = self.take()
            inside = literal(bold.items if isinstance(bold, Group) else (bold,))
            if inside in ("i", "j", "k"):
                return read_named(self, f"\\vector{{{inside}}}")
            self.rest[:0] = bold.items if isinstance(bold, Group) else [bold]
            return self.atom()
        if name in ("sum", "prod", "int", "lim"):
            return read_operator(name, self)
        if name in LETTERS:
            return read_named(self, f"\\{name}")
        raise Unreadable(f"\\{name} is not known here")

    def _part(self) -> Item:
        """What \\frac takes: a group, or one token, of a number its first digit."""
        item = self.take()
        if isinstance(item, Token) and item.kind in ("number", "word") and len(item.text) > 1:
            self.rest.insert(0, Token(item.kind, item.text[1:], False, item.start))
            return Token(item.kind, item.text[0], item.spaced, item.start)
        return item

    def _fraction(self) -> Node:
        top, bottom = self._part(), self._part()
        if derivative := derivative_of(top, bottom):
            if not derivative[0]:
                derivative = (_operand(self), derivative[1])
            return read_named(self, f"{derivative[0]}~{derivative[1]}")
        self.rest[:0] = [top, bottom]
        above = self.need()
        return ("mul", above, ("pow", self.need(), ("num", Fraction(-1))))


def _bracketed(group: Group) -> Node:
    if group.opening in ("(", "[", "{") and group.closing in (")", "]", "}"):
        if group.opening + group.closing not in ("()", "[]", "{}"):
            raise Unreadable("a half-open interval within an expression")
        return read_expression(group.items)
    if group.opening == "\\lfloor":
        return ("fn", "floor", read_expression(group.items))
    if group.opening == "\\lceil":
        return ("fn", "ceil", read_expression(group.items))
    if group.opening == "\\lvert":
        return ("fn", "abs", read_expression(group.items))
    if group.opening == "\\begin{vmatrix}":
        return _determinant([[read_expression(entry) for entry in split(row, "&")] for row in split(group.items, "\\\\") if row])
    raise Unreadable(f"{group.opening} within an expression")


def _determinant(rows: list[list[Node]]) -> Node:
    if not rows or any(len(row) != len(rows) for row in rows) or len(rows) > 4:
        raise Unreadable("a determinant that is not square, or larger than 4 × 4")
    if len(rows) == 1:
        return rows[0][0]
    terms = [
        ("mul", ("num", Fraction((-1) ** column)), entry, _determinant([row[:column] + row[column + 1 :] for row in rows[1:]]))
        for column, entry in enumerate(rows[0])
    ]
    return ("add", *terms)


def _operand(reader: Reader) -> str:
    """The name that \\frac{d}{dt} is applied to."""
    node = reader.atom()
    if node[0] != "sym":
        raise Unreadable("a derivative of an expression")
    return str(node[1])
