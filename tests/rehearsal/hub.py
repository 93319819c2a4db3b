"""A hub on loopback: the part of its HTTP interface that huggingface_hub, transformers and datasets ask for.

Repositories are folders ROOT/models/OWNER/NAME and ROOT/datasets/OWNER/NAME; each has one commit, a hash of its files.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse


def _oid(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Repository:
    """A folder read as a repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        self.oids = {name: _oid(path) for name, path in self.files.items()}
        self.commit = hashlib.sha1(json.dumps(self.oids).encode()).hexdigest()

    def entry(self, name: str) -> dict[str, Any]:
        return {"type": "file", "oid": self.oids[name], "size": self.files[name].stat().st_size, "path": name}

    def tree(self, under: str, recursive: bool) -> list[dict[str, Any]]:
        prefix = f"{under}/" if under else ""
        inside = [name for name in self.files if name.startswith(prefix)]
        folders = {
            f"{prefix}{'/'.join(parts[:depth])}"
            for name in inside
            if (parts := name[len(prefix) :].split("/"))
            for depth in range(1, len(parts))
        }
        shown = sorted(folder for folder in folders if recursive or "/" not in folder[len(prefix) :])
        entries = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in shown]
        return entries + [self.entry(name) for name in inside if recursive or "/" not in name[len(prefix) :]]


def hub(root: Path) -> FastAPI:
    """The application."""
    app = FastAPI()
    known: dict[Path, Repository] = {}

    def find(kind: str, owner: str, name: str) -> Repository | None:
        folder = root / kind / owner / name
        if folder not in known and folder.is_dir():
            known[folder] = Repository(folder)
        return known.get(folder)

    def missing(code: str) -> Response:
        return JSONResponse({"error": code}, 404, {"X-Error-Code": code, "X-Error-Message": code})

    @app.get("/api/{kind}/{owner}/{name}")
    @app.get("/api/{kind}/{owner}/{name}/revision/{revision}")
    def info(kind: str, owner: str, name: str, revision: str = "main") -> Response:
        found = find(kind, owner, name)
        if found is None:
            return missing("RepoNotFound")
        if revision not in ("main", found.commit):
            return missing("RevisionNotFound")
        told = {"id": f"{owner}/{name}", "sha": found.commit, "private": False, "gated": False, "disabled": False, "downloads": 0}
        dated = {"likes": 0, "tags": [], "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z"}
        return JSONResponse({**told, **dated, "siblings": [{"rfilename": file} for file in found.files]})

    @app.get("/api/{kind}/{owner}/{name}/tree/{revision}")
    @app.get("/api/{kind}/{owner}/{name}/tree/{revision}/{under:path}")
    def tree(kind: str, owner: str, name: str, revision: str, under: str = "", recursive: bool = False) -> Response:
        found = find(kind, owner, name)
        if found is None:
            return missing("RepoNotFound")
        entries = found.tree(under, recursive)
        return JSONResponse(entries) if entries or not under else missing("EntryNotFound")

    @app.post("/api/{kind}/{owner}/{name}/paths-info/{revision}")
    async def paths(kind: str, owner: str, name: str, revision: str, request: Request) -> Response:
        found = find(kind, owner, name)
        if found is None:
            return missing("RepoNotFound")
        asked = (
            (await request.json())["paths"]
            if "json" in request.headers.get("content-type", "")
            else (await request.form()).getlist("paths")
        )
        asked = [asked] if isinstance(asked, str) else list(asked)
        return JSONResponse([found.entry(file) for file in asked if file in found.files])

    def serve(kind: str, owner: str, name: str, revision: str, file: str) -> Response:
        found = find(kind, owner, name)
        if found is None:
            return missing("RepoNotFound")
        if revision not in ("main", found.commit):
            return missing("RevisionNotFound")
        if file not in found.files:
            return JSONResponse({}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": found.commit})
        return FileResponse(found.files[file], headers={"X-Repo-Commit": found.commit, "ETag": f'"{found.oids[file]}"'})

    @app.api_route("/datasets/{owner}/{name}/resolve/{revision}/{file:path}", methods=["GET", "HEAD"])
    def dataset(owner: str, name: str, revision: str, file: str) -> Response:
        return serve("datasets", owner, name, revision, file)

    @app.api_route("/{owner}/{name}/resolve/{revision}/{file:path}", methods=["GET", "HEAD"])
    def model(owner: str, name: str, revision: str, file: str) -> Response:
        return serve("models", owner, name, revision, file)

    return app
