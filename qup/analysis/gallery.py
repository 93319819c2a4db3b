"""Pictures of reports for documents, each with the table it was drawn from, so that a reader and a test can tell whose numbers it shows.

    python -m qup.analysis.gallery docs/images --dir multirun

takes those that `pictures.json` in the folder names, as `file: [study, figure]`, from the studies that are there. A picture
holds, in its metadata, the digest of the table that is laid beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from qup.errors import InputError, QupError
from qup.study import find_study

LIST = "pictures.json"
NOTE = "Source"
"""Name of the PNG text that says where the picture comes from."""


def note(study: str, figure: str, table: str, csv: bytes) -> str:
    """What a picture says of itself."""
    return json.dumps({"study": study, "figure": figure, "table": table, "sha256": hashlib.sha256(csv).hexdigest()})


def noted(picture: Path) -> dict[str, str]:
    """What a picture says of itself; empty where it says nothing."""
    from PIL import Image

    with Image.open(picture) as image:
        text = getattr(image, "text", {}).get(NOTE, "")
    return dict(json.loads(text)) if text else {}


def take(report: Path, figure: str, target: Path) -> None:
    """Copies a figure of a report, and beside it the table that it was drawn from. Raises InputError where it has none."""
    source = report / "figures" / f"{figure}.png"
    if not source.exists():
        there = ", ".join(sorted(path.stem for path in source.parent.glob("*.png")))
        raise InputError(f"{report}: has no figure {figure!r}; there are {there}")
    said = noted(source)
    if not said.get("table"):
        raise InputError(f"{source}: says of no table that it was drawn from it; build the report again, or take another figure")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    shutil.copyfile(report / "tables" / f"{said['table']}.csv", target.with_suffix(".csv"))


def fault(picture: Path) -> str:
    """Why a picture cannot be believed; "" where the table beside it is the one that it was drawn from."""
    said, table = noted(picture), picture.with_suffix(".csv")
    if not said.get("table"):
        return f"{picture.name}: does not say what it was drawn from"
    if not table.exists():
        return f"{picture.name}: {table.name} is not beside it"
    if hashlib.sha256(table.read_bytes()).hexdigest() != said["sha256"]:
        return f"{picture.name}: {table.name} is not the table that it was drawn from"
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit status 1 with one message where a picture cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m qup.analysis.gallery", description="Pictures of reports for documents.")
    parser.add_argument("folder", type=Path, help=f"where {LIST} lies and the pictures go")
    parser.add_argument("--dir", type=Path, default=Path("multirun"), help="where studies are presented (study.dir)")
    parser.add_argument("--only", action="append", default=[], metavar="FILE", help="only this picture; may be repeated")
    args = parser.parse_args(argv)
    try:
        wanted = json.loads((args.folder / LIST).read_text(encoding="utf-8"))
        for name in args.only or wanted:
            if name not in wanted:
                raise InputError(f"--only={name}: {args.folder / LIST} names {', '.join(wanted)}")
            study, figure = wanted[name]
            take(find_study(study, args.dir).folder / "report", figure, args.folder / name)
            print(f"{args.folder / name}  {study}, {figure}")
    except QupError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
