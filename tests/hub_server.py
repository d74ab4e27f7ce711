"""A stand-in for a model hub's HTTP: repositories, commits, files with ranges, gates. Knows what clients of hubs ask.

It speaks what huggingface_hub uses of one: `/api/models/<repo>/revision/<rev>` and `/<repo>/resolve/<rev>/<file>` with
the headers X-Repo-Commit, X-Linked-Etag, X-Linked-Size, ETag and X-Error-Code, and it redirects LFS files as hubs do.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """`commits` maps a commit to its files, `branches` a name to a commit. `token` is who may read, '' everybody."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    token: str = ""

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """A new commit at the head of a branch."""
        name = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode(), usedforsecurity=False).hexdigest()
        self.commits[name] = dict(files)
        self.branches[branch] = name
        return name


@dataclass
class Hub:
    """`cuts` are byte counts after which the next downloads break off; `lies` are other bytes for a file's name."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    lies: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range of each request."""

    @property
    def cdn(self) -> str:
        """Where files lie: another host, as far as a client can see."""
        return self.url.replace("127.0.0.1", "localhost")

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *args: object) -> None:
        pass

    @property
    def _hub(self) -> Hub:
        return cast(_Server, self.server).hub

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self._hub.requests.append((self.command, path, self.headers.get("Range", "")))
        words = [unquote(word) for word in path.strip("/").split("/")]  # a branch may hold a slash, sent as %2F
        if words[:2] == ["api", "models"]:
            self._describe("/".join(words[2:4]), words[5] if len(words) > 5 else "main")
        elif words[:1] == ["cdn"]:
            self._download("/".join(words[1:3]), words[3], "/".join(words[4:]))
        elif len(words) > 4 and words[2] == "resolve":
            self._resolve("/".join(words[:2]), words[3], "/".join(words[4:]))
        else:
            self._refuse(404, "")

    def _find(self, repo: str, revision: str) -> tuple[Repository, str] | None:
        """The repository and the commit that is meant, or None after a refusal."""
        found = self._hub.repositories.get(repo)
        if found is None:
            # As the real one: it does not tell a stranger what exists.
            self._refuse(401, "RepoNotFound")
            return None
        if found.token and self.headers.get("Authorization") != f"Bearer {found.token}":
            self._refuse(401 if "Authorization" not in self.headers else 403, "GatedRepo")
            return None
        commit = found.branches.get(revision, revision)
        if commit not in found.commits:
            self._refuse(404, "RevisionNotFound")
            return None
        return found, commit

    def _describe(self, repo: str, revision: str) -> None:
        if (found := self._find(repo, revision)) is None:
            return
        repository, commit = found
        siblings = [
            {
                "rfilename": name,
                "size": len(data),
                "blobId": hashlib.sha1(data, usedforsecurity=False).hexdigest(),
                "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130},
            }
            for name, data in repository.commits[commit].items()
        ]
        body = {"_id": repo, "id": repo, "modelId": repo, "sha": commit, "siblings": siblings, "tags": repository.tags}
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _resolve(self, repo: str, revision: str, name: str) -> None:
        if (found := self._find(repo, revision)) is None:
            return
        repository, commit = found
        data = repository.commits[commit].get(name)
        if data is None:
            self._refuse(404, "EntryNotFound")
            return
        self._send(
            302,
            b"",
            {
                "Location": f"{self._hub.cdn}/cdn/{repo}/{commit}/{name}",
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"',
                "X-Linked-Size": str(len(data)),
            },
        )

    def _download(self, repo: str, commit: str, name: str) -> None:
        data = self._hub.lies.get(name, self._hub.repositories[repo].commits[commit][name])
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        status = 206 if "Range" in self.headers else 200
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(status, data[start:], headers, cut=self._hub.cuts.pop(0) if self._hub.cuts else None)

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": "no"} if code else {})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on a port of this machine."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
