"""`qup rm`: a study is no longer registered; what it stored stays until `qup store gc`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from qup.errors import InputError
from qup.launch.activity import refuse_alive
from qup.launch.plan import published
from qup.launch.registry import clear, registering
from qup.pipeline import KINDS
from qup.study import FILE, Study, find_study, registered


def remove(names: Sequence[str], shown: Path, console: Console) -> int:
    """Unregisters studies, all or, where one of them can't be, none; exit status 0."""
    studies = {study.folder: study for study in (find_study(name, shown) for name in names)}
    for study in studies.values():
        _refuse(study)
    for study in studies.values():
        for line in _remove_dry(study) if study.dry_run else _unregister(study, shown, console):
            console.print(line, markup=False)
    return 0


def _refuse(study: Study) -> None:
    if study.dry_run:
        return
    if study.folder.parent != study.store / "studies":
        raise InputError(f"study {study.name}: {study.folder} is a copy, registered in no store; remove the folder itself")
    refuse_alive(study, "can be removed")


def _remove_dry(study: Study) -> list[str]:
    for name in ("plan.json", FILE):
        (study.folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # not empty: somebody else's files are there
        study.folder.rmdir()
    return [f"dry run {study.name} removed ({study.folder})"]


def _unregister(study: Study, shown: Path, console: Console) -> list[str]:
    store = study.open_store()
    with registering(study.folder, console.print):
        _refuse(study)
        links = []
        for folder in dict.fromkeys((shown.absolute(), Path(study.setting("study.dir", shown)).absolute())):
            link = folder / study.name
            if link.is_symlink() and link.resolve() == study.folder.resolve():
                link.unlink()
                links.append(str(link))
        clear(study.folder)
    needed = {ref for other in registered(store) for ref in other.nodes}
    known = published(store, list(KINDS))
    left = sum(ref.key in known[ref.kind] for ref in study.nodes if ref not in needed)
    lines = [f"study {study.name} unregistered: {len(study.cells)} cells; removed {', '.join([str(study.folder), *links])}"]
    if left:
        lines.append(f"{left} artifacts that no other study needs stay in {store.root} until `qup store --store {store.root} gc`")
    return lines
