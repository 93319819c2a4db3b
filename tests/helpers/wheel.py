"""qup installed from its wheel, in an environment of its own over the packages of this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.lab import ROOT

BUILT_FROM = ("qup", "conf", "hydra_plugins", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@dataclass(frozen=True)
class Installed:
    """A new environment with the wheel in it."""

    wheel: Path
    root: Path

    @property
    def packages(self) -> Path:
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.root)}))

    def environment(self) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return dict(env, HF_HUB_OFFLINE="1", COLUMNS="200")

    def qup(self, folder: Path, *words: str, timeout: float = 600) -> tuple[int, str]:
        """Exit status and output of the console command, typed in a folder."""
        command = [str(self.root / "bin" / "qup"), *words]
        done = subprocess.run(command, cwd=folder, env=self.environment(), capture_output=True, text=True, timeout=timeout)
        return done.returncode, done.stdout + done.stderr

    def files(self) -> dict[str, int]:
        """Each file in site-packages, with its time of change; byte code aside."""
        found = (path for path in self.packages.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(self.packages)): path.stat().st_mtime_ns for path in found}


def install(folder: Path) -> Installed:
    """Builds the wheel from a copy of the sources, where no earlier build lies about, and installs it read-only."""
    source = folder / "source"
    source.mkdir()
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, source / name)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    root = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root)], check=True)
    made = Installed(wheel, root)
    shared = [entry for entry in sys.path if entry.rstrip("/").endswith("site-packages")]
    (made.packages / "shared.pth").write_text("\n".join(shared) + "\n")
    _pip("--python", str(root / "bin" / "python"), "install", "--no-deps", "--no-index", "--no-compile", str(wheel))
    for path in (made.packages, *made.packages.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    return made


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _pip(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
