"""A small Hugging Face hub of our own on 127.0.0.1, which the real library talks to."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TOKEN = "hf_" + "secret" * 5


class Hub(ThreadingHTTPServer):
    """Repositories of files in memory, and the requests of which an upload consists."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.commits: list[dict[str, Any]] = []
        self.committed_to: list[str] = []
        """Their branches."""
        self.branches: list[str] = []
        """Those that were created."""
        self.blobs: dict[str, bytes] = {}
        self.large = ".parquet"
        """How the names of files end that come by LFS."""
        self.fails: dict[str, int] = {}
        """Part of a path -> status that requests for it get."""


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *ignored: Any) -> None:
        pass

    def answer(self, value: Any = None, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def refused(self) -> bool:
        for part, status in self.server.fails.items():
            if part in self.path:
                self.answer({"error": f"no, {self.headers['Authorization']}"}, status)
                return True
        if "/blob/" not in self.path and self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer({"error": "who are you?"}, 401)
            return True
        return False

    def do_GET(self) -> None:
        if self.refused():
            return
        hub, name = self.server, re.sub(r"^/api/(?:datasets|models)/([^/]+/[^/?]+).*", r"\1", self.path)
        if name not in hub.repositories:
            self.answer({"error": "there is no such repository"}, 404)
        elif "/tree/" in self.path:
            held = hub.repositories[name].items()
            self.answer([{"type": "file", "path": path, "size": len(data), "oid": "0" * 40} for path, data in held])
        else:
            self.answer({"id": name, "private": hub.private[name], "siblings": [], "tags": [], "gated": False, "downloads": 0})

    def do_PUT(self) -> None:
        data, digest = self.body(), self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == digest
        self.server.blobs[digest] = data
        self.answer()

    def do_POST(self) -> None:
        body, hub = self.body(), self.server
        if self.refused():
            return
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            there = name in hub.repositories
            hub.repositories.setdefault(name, {".gitattributes": b"", "LICENSE": b"theirs"})
            hub.private.setdefault(name, asked.get("visibility") == "private" or asked.get("private") is True)
            url = f"{hub.address}/{'datasets/' if asked.get('type') == 'dataset' else ''}{name}"
            self.answer({"url": url, "error": "it is there already"} if there else {"url": url}, 409 if there else 200)
        elif "/branch/" in self.path:
            hub.branches.append(self.path.rpartition("/")[2])
            self.answer()
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            modes = [(item["path"], "lfs" if item["path"].endswith(self.server.large) else "regular") for item in json.loads(body)["files"]]
            self.answer({"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": None} for path, mode in modes]})
        elif self.path.endswith("/objects/batch"):
            objects = json.loads(body)["objects"]
            for item in objects:
                item["actions"] = {"upload": {"href": f"{hub.address}/blob/{item['oid']}"}}
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            name = "/".join(self.path.split("/")[3:5])
            hub.committed_to.append(self.path.partition("/commit/")[2])
            files = hub.repositories[name]
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    hub.commits.append(value)
                elif line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = hub.blobs[value["oid"]]
                else:
                    assert line["key"] == "deletedFile"
                    del files[value["path"]]
            self.answer({"commitUrl": f"{hub.address}/datasets/{name}/commit/{'1' * 40}", "commitOid": "1" * 40, "success": True})
        else:
            self.answer({"error": f"what is {self.path}?"}, 404)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that runs, and the library told to use it; its uploader in Rust talks to servers that are not faked here."""
    from huggingface_hub import close_session, constants

    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    for variable in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HF_URL_HOSTS", frozenset({"127.0.0.1"}), raising=False)  # not in all versions
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    close_session()
    yield hub
    close_session()
    hub.shutdown()
    thread.join()
    hub.server_close()
