"""A plugin of mypy that notes where a setting is read: `Class.field <tab> file`, a line a read, into $QUP_TEST_READS."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from mypy.plugin import AttributeContext, Plugin
from mypy.types import Type

SCHEMA = "qup.config.schema."


class Reads(Plugin):
    """Asked by mypy for every attribute of every object whose class it knows."""

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        if not fullname.startswith(SCHEMA):
            return None

        def note(found: AttributeContext) -> Type:
            with Path(os.environ["QUP_TEST_READS"]).open("a", encoding="utf-8") as notes:
                notes.write(f"{'.'.join(fullname.split('.')[-2:])}\t{found.api.path}\n")
            return found.default_attr_type

        return note


def plugin(version: str) -> type[Plugin]:
    """What mypy looks for."""
    return Reads
