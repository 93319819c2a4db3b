"""What the readers of names, functions and operators need of the reader of expressions that calls them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from qup.answers.reading.tokens import Item, Unreadable
from qup.answers.reading.vocabulary import Node


class Cursor(ABC):
    """Items, taken from the front, and how parts of expressions are read."""

    def __init__(self, items: tuple[Item, ...]) -> None:
        self.rest = list(items)

    def peek(self, ahead: int = 0) -> Item | None:
        """The next item, or the one `ahead` of it."""
        return self.rest[ahead] if len(self.rest) > ahead else None

    def take(self) -> Item:
        """The next item, which is then read. Raises Unreadable at the end."""
        if not self.rest:
            raise Unreadable("something is missing at the end")
        return self.rest.pop(0)

    @abstractmethod
    def product(self) -> Node:
        """One term."""

    @abstractmethod
    def factor(self) -> Node:
        """One factor with its powers."""

    @abstractmethod
    def atom(self, single: bool = False) -> Node:
        """One factor without its powers; `single`: of letters side by side the first."""

    @abstractmethod
    def argument(self, script: bool = False) -> Node | None:
        """What a macro, or with `script` a ^ or _, takes; None is a degree sign."""

    @abstractmethod
    def whole(self, items: tuple[Item, ...]) -> Node:
        """Other items as one expression."""
