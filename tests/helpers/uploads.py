"""A hub on loopback that takes repositories: the part of its HTTP interface by which huggingface_hub creates and fills them."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

TOKEN = "hf_of_the_tests"
LARGE = (".safetensors", ".parquet")


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


@dataclass
class Uploads:
    """What was made and asked; `refuses` is a part of a path that is answered with 403."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    """By `models/OWNER/NAME` and `datasets/OWNER/NAME`."""
    asked: list[str] = field(default_factory=list)
    refuses: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.middleware("http")
        async def guard(request: Request, call_next: Any) -> Response:
            self.asked.append(f"{request.method} {request.url.path}")
            if request.method != "PUT" and request.headers.get("authorization") != f"Bearer {TOKEN}":
                return JSONResponse({"error": "Invalid username or password."}, 401)
            if self.refuses and self.refuses in request.url.path:
                return JSONResponse({"error": "this token may not write"}, 403)
            return await call_next(request)

        @app.get("/api/whoami-v2")
        def whoami() -> dict[str, Any]:
            return {"name": "me", "type": "user", "orgs": [], "auth": {"type": "access_token"}}

        @app.get("/api/{kind}/{owner}/{name}")
        def info(kind: str, owner: str, name: str) -> Response:
            found = self.repositories.get(f"{kind}/{owner}/{name}")
            if found is None:
                return JSONResponse({"error": "no"}, 404, {"X-Error-Code": "RepoNotFound"})
            siblings = [{"rfilename": file} for file in found.files]
            return JSONResponse({"id": f"{owner}/{name}", "private": found.private, "siblings": siblings, "sha": "0" * 40})

        @app.post("/api/repos/create")
        async def create(request: Request) -> Response:
            asked = await request.json()
            name = f"{asked['type']}s/{asked['organization']}/{asked['name']}"
            if name in self.repositories:
                return JSONResponse({"error": "there already"}, 409)
            self.repositories[name] = Repository(asked["visibility"] == "private", {".gitattributes": b""})
            return JSONResponse({"url": f"{request.base_url}{name.removeprefix('models/')}"})

        @app.post("/api/validate-yaml")
        def card() -> dict[str, Any]:
            return {"errors": [], "warnings": []}

        @app.post("/api/{kind}/{owner}/{name}/preupload/{revision}")
        async def modes(request: Request) -> dict[str, Any]:
            files = (await request.json())["files"]
            told = [(one["path"], "lfs" if one["path"].endswith(LARGE) else "regular") for one in files]
            return {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None} for path, mode in told]}

        async def batch(request: Request) -> dict[str, Any]:
            objects = (await request.json())["objects"]
            return {
                "objects": [
                    {**one, "authenticated": True, "actions": {"upload": {"href": f"{request.base_url}blobs/{one['oid']}"}}}
                    for one in objects
                ]
            }

        app.post("/{owner}/{name}.git/info/lfs/objects/batch")(batch)
        app.post("/datasets/{owner}/{name}.git/info/lfs/objects/batch")(batch)

        @app.put("/blobs/{oid}")
        async def blob(oid: str, request: Request) -> Response:
            content = await request.body()
            assert hashlib.sha256(content).hexdigest() == oid
            self.blobs[oid] = content
            return Response()

        @app.post("/api/{kind}/{owner}/{name}/commit/{revision}")
        async def commit(kind: str, owner: str, name: str, request: Request) -> dict[str, Any]:
            found = self.repositories[f"{kind}/{owner}/{name}"]
            for line in (await request.body()).splitlines():
                entry = json.loads(line)
                match entry["key"], entry["value"]:
                    case "header", value:
                        found.messages.append(value["summary"])
                    case "file", value:
                        found.files[value["path"]] = base64.b64decode(value["content"])
                    case "lfsFile", value:
                        found.files[value["path"]] = self.blobs[value["oid"]]
            return {"success": True, "commitOid": "1" * 40, "commitUrl": f"{request.base_url}{owner}/{name}/commit/{'1' * 40}"}

        return app
