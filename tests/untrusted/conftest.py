"""A hub on this machine's own loopback: as much of its protocol as a download of a model uses."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch
from safetensors.torch import load_file

COMMIT = "c0ffee" + "0" * 34
LARGE = (".safetensors", ".pt", "tokenizer.json")  # kept apart from git, by sha256


class Hub:
    """One repository, `owner/model`; `requests` are (method, path, range)."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.commit = files, COMMIT
        self.newest = COMMIT  # what `main` is now; `commit` alone has files
        self.gated = False
        self.cuts: list[tuple[str, int]] = []  # the next request of this file ends after so many bytes
        self.requests: list[tuple[str, str, str]] = []
        self.stalled, self.resume = threading.Event(), threading.Event()
        self.stalls: tuple[str, int] | None = None  # this file stops there until `resume`
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def asked(self, name: str) -> list[str]:
        """The ranges of every request for the bytes of a file."""
        wanted = f"/cdn/{name}" if name.endswith(LARGE) else f"/owner/model/resolve/{self.commit}/{name}"
        return [range_ for method, path, range_ in self.requests if method == "GET" and path == wanted]

    def listing(self) -> dict[str, object]:
        siblings = []
        for name, data in self.files.items():
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": git}
            if name.endswith(LARGE):
                entry["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
            siblings.append(entry)
        return {"id": "owner/model", "sha": self.commit, "siblings": siblings}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path, self.headers.get("Range", "")))
        file = path.removeprefix(f"/owner/model/resolve/{hub.commit}/")
        if path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"))
        elif path.startswith("/cdn/"):
            self._data(path.removeprefix("/cdn/"), {})
        elif file not in hub.files:
            self._refuse(404, "EntryNotFound")
        elif hub.gated:
            self._refuse(403, "GatedRepo")
        elif file.endswith(LARGE):
            self.send_response(302)
            self.send_header("Location", f"{hub.url}/cdn/{file}")
            self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._data(file, {"X-Repo-Commit": hub.commit})

    def _api(self, asked: str) -> None:
        repository, _, revision = asked.partition("/revision/")
        if repository != "owner/model":
            self._refuse(404, "RepoNotFound")
        elif revision not in ("", "main", "v1", self.hub.commit):
            self._refuse(404, "RevisionNotFound")
        elif self.hub.gated:
            self._refuse(403, "GatedRepo")
        else:
            newest = {"sha": self.hub.newest} if revision in ("", "main") else {}
            answer = json.dumps({**self.hub.listing(), **newest}).encode()
            self._send(200, answer, {"Content-Type": "application/json"})

    def _data(self, name: str, headers: dict[str, str]) -> None:
        data, range_ = self.hub.files[name], self.headers.get("Range")
        begin = int(range_.removeprefix("bytes=").split("-")[0]) if range_ else 0
        headers |= {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        if range_:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self._send(206 if range_ else 200, data[begin:], headers, name)

    def _send(self, status: int, body: bytes, headers: dict[str, str], name: str = "") -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        hub = self.hub
        if hub.cuts and hub.cuts[0][0] == name:
            self.wfile.write(body[: hub.cuts.pop(0)[1]])
            self.close_connection = True
            return
        if hub.stalls and hub.stalls[0] == name:
            self.wfile.write(body[: hub.stalls[1]])
            self.wfile.flush()
            hub.stalled.set()
            hub.resume.wait(60)
            self.close_connection = True
            return
        self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code})


@pytest.fixture
def hub(released_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The tiny released model on a hub, with code and pickles around it as real repositories have."""
    files = {f.relative_to(released_directory).as_posix(): f.read_bytes() for f in released_directory.rglob("*.*")}
    files = {name: data for name, data in sorted(files.items()) if "." in name.rsplit("/", 1)[-1]}
    features = files.pop("image_tokenizer/sigvq_embedding.safetensors")
    (tmp_path / "f.safetensors").write_bytes(features)
    torch.save(load_file(tmp_path / "f.safetensors"), tmp_path / "f.pt")
    files["image_tokenizer/sigvq_embedding.pt"] = (tmp_path / "f.pt").read_bytes()
    bad = b"raise SystemExit('this must never run')\n"
    for name in ("modeling_llada2uni_moe.py", "decoder/decode.py", "setup.sh", "training_args.bin", "optimizer.pt"):
        files[name] = bad
    files |= {".gitattributes": bad, ".hidden/config.json": b"{}", "manifest.json": b"[]", "README.md": b"# Model\n"}
    there = Hub(files)
    thread = threading.Thread(target=there.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    for name, value in {
        "HF_ENDPOINT": there.url, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "*", "HF_HUB_DISABLE_TELEMETRY": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    template = f"{there.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"  # in this process it was read long ago
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", there.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield there
    there.resume.set()
    there.server.shutdown()
    thread.join()
    there.server.server_close()
