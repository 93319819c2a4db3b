"""A published artifact: a folder whose manifest was written last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qup.errors import CorruptArtifact
from qup.files import file_sha256, write_table

if TYPE_CHECKING:
    import pyarrow as pa

PRUNED = "pruned"
"""The file that marks a training whose weights were taken away."""


def model_of(inputs: Mapping[str, Artifact], name: str = "student") -> Path | None:
    """The weights that an input holds; None where there is no such input."""
    return inputs[name].directory("model") if name in inputs else None


def save_table(out: Path, name: str, table: pa.Table) -> None:
    """Writes `table` as `<out>/<name>.parquet`."""
    write_table(out / f"{name}.parquet", table)


@dataclass(frozen=True)
class Artifact:
    """What a stage made, read-only."""

    stage: str
    key: str
    path: Path
    manifest: dict[str, Any]

    @property
    def metrics(self) -> dict[str, Any]:
        return self.manifest["metrics"]

    @property
    def digest(self) -> str:
        return self.manifest["digest"]

    @property
    def pruned(self) -> bool:
        """Whether its weights were taken away after their evaluation."""
        return (self.path / PRUNED).exists()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(entry["size"] for entry in self.manifest["files"].values())

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A table of this artifact; raises CorruptArtifact where its file changed since publication."""
        import pyarrow.parquet as pq  # a plan reads manifests only

        return pq.read_table(self.file(f"{name}.parquet"), columns=columns)

    def file(self, name: str) -> Path:
        """A file of this artifact, verified against the manifest."""
        self.verify(only=name)
        return self.path / name

    def has(self, name: str) -> bool:
        """Whether the artifact holds that file, or a folder of that name."""
        return name in self.manifest["files"] or any(entry.startswith(f"{name}/") for entry in self.manifest["files"])

    def directory(self, name: str) -> Path:
        """A folder of this artifact, verified against the manifest."""
        for entry in self.manifest["files"]:
            if entry.startswith(f"{name}/"):
                self.verify(only=entry)
        return self.path / name

    def verify(self, only: str | None = None) -> None:
        """Compares bytes with the manifest's checksums; raises CorruptArtifact."""
        names = [only] if only else list(self.manifest["files"])
        for name in names:
            entry = self.manifest["files"].get(name)
            path = self.path / name
            if entry is None:
                raise CorruptArtifact(self.stage, self.key, f"{name} is not in its manifest")
            if not path.is_file():
                raise CorruptArtifact(self.stage, self.key, f"{name} is missing")
            if path.stat().st_size != entry["size"]:
                raise CorruptArtifact(self.stage, self.key, f"{name} has {path.stat().st_size} bytes, published with {entry['size']}")
            if file_sha256(path) != entry["sha256"]:
                raise CorruptArtifact(self.stage, self.key, f"checksum of {name} differs")

    @classmethod
    def load(cls, stage: str, key: str, path: Path) -> Artifact | None:
        """The artifact at `path`, None where there is none; sizes are checked, bytes only when read."""
        try:
            text = (path / "manifest.json").read_text(encoding="utf-8")
            manifest = json.loads(text)
        except FileNotFoundError:
            return None
        except (ValueError, UnicodeDecodeError) as error:
            raise CorruptArtifact(stage, key, f"manifest.json is not JSON ({error})") from None
        if not isinstance(manifest, dict) or manifest.get("key") != key or "files" not in manifest:
            raise CorruptArtifact(stage, key, "manifest.json is not this artifact's")
        for name, entry in manifest["files"].items():
            try:
                size = (path / name).stat().st_size
            except FileNotFoundError:
                if _changed(path / "manifest.json", text):
                    # its weights were taken away between the two looks, or the whole artifact was
                    return cls.load(stage, key, path)
                raise CorruptArtifact(stage, key, f"{name} is missing") from None
            if size != entry["size"]:
                raise CorruptArtifact(stage, key, f"{name} has {size} bytes, published with {entry['size']}")
        return cls(stage, key, path, manifest)


def _changed(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") != text
    except (FileNotFoundError, UnicodeDecodeError):
        return True
