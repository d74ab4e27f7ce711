"""A stand-in for the metadata servers of EC2 and Compute Engine: both shapes at one address, and faults on demand."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

LIMIT_S = 10.0
DRIP_S = 0.02


class MetadataStandIn:
    """What it says is set by a test at any time; `hang` holds every answer back until the server ends.

    `drip` lets no answer end; `garbage` is sent instead of any HTTP, `wrong` instead of any proper body, and status 500
    for the paths in `broken`. `skew` is how far its clock is ahead.
    """

    def __init__(self) -> None:
        self.here = {"ec2", "gce"}
        self.skew = timedelta()
        self.instance_action: dict[str, Any] | str | None = None
        self.lifecycle: str | None = None
        self.rebalance: str | None = None
        self.hang = False
        self.drip = b""
        self.broken: frozenset[str] = frozenset()
        self.garbage = b""
        self.wrong: str | None = None
        self.dated = True
        self.etag_suffix = ""
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.over = threading.Event()
        self._changed = threading.Condition()
        self._keys = {"preempted": "FALSE", "maintenance-event": "NONE"}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def run(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def end(self) -> None:
        self.over.set()
        with self._changed:
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.skew

    def interrupt(self, action: str = "terminate", seconds: float = 120.0) -> None:
        """The notice of a spot instance, by this server's clock."""
        at = self.now() + timedelta(seconds=seconds)
        self.instance_action = {"action": action, "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")}

    def set_key(self, key: str, value: str) -> None:
        """Of Compute Engine; whoever waits for a change is told."""
        with self._changed:
            self._keys[key] = value
            self._changed.notify_all()

    def key(self, name: str, etag: str, wait_s: float) -> tuple[str, str]:
        """Value and etag; waits for as long as the etag is still right."""
        with self._changed:
            self._changed.wait_for(lambda: self.over.is_set() or self._etag(name) != etag, wait_s)
            return self._keys[name], self._etag(name)

    def _etag(self, name: str) -> str:
        return self._keys[name].encode().hex() + self.etag_suffix


def _handler(said: MetadataStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            if self._begin() and self.path == "/latest/api/token" and "ec2" in said.here:
                if "X-aws-ec2-metadata-token-ttl-seconds" not in self.headers:
                    return self._say(400, "")
                token = f"token-{len(said.asked)}"
                said.tokens.add(token)
                return self._say(200, token)
            return self._say(404, "")

        def do_GET(self) -> None:
            if not self._begin():
                return
            path = urlsplit(self.path).path
            if path.startswith("/computeMetadata/v1/instance/") and "gce" in said.here:
                self._google(path.rpartition("/")[2])
            elif path.startswith("/latest/meta-data/") and "ec2" in said.here:
                self._amazon(path.removeprefix("/latest/meta-data/"))
            else:
                self._say(404, "")

        def _begin(self) -> bool:
            said.asked.append(f"{self.command} {self.path}")
            if said.hang:
                said.over.wait(LIMIT_S)
                return False
            if said.drip:
                self._drip()
                return False
            if said.garbage:
                self.wfile.write(said.garbage)
                return False
            return True

        def _drip(self) -> None:
            self.wfile.write(said.drip)
            with suppress(OSError):
                while not said.over.wait(DRIP_S):
                    self.wfile.write(b"a")

        def _amazon(self, path: str) -> None:
            if self.headers.get("X-aws-ec2-metadata-token") not in said.tokens:
                return self._say(401, "")
            action = said.instance_action
            values = {
                "spot/instance-action": json.dumps(action) if isinstance(action, dict) else action,
                "autoscaling/target-lifecycle-state": said.lifecycle,
                "events/recommendations/rebalance": said.rebalance,
            }
            value = values.get(path)
            if path in said.broken:
                return self._say(500, "")
            return self._say(404, "") if value is None else self._say(200, value)

        def _google(self, key: str) -> None:
            if self.headers.get("Metadata-Flavor") != "Google":
                return self._say(403, "")
            if key in said.broken:
                return self._say(500, "")
            query = parse_qs(urlsplit(self.path).query)
            wait_s = float(query.get("timeout_sec", ["0"])[0]) if "wait_for_change" in query else 0.0
            value, etag = said.key(key, query.get("last_etag", [""])[0], wait_s)
            return self._say(200, value, {"Metadata-Flavor": "Google", "ETag": etag})

        def _say(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
            raw = (body if said.wrong is None else said.wrong).encode()
            self.send_response_only(status)
            if said.dated:
                self.send_header("Date", format_datetime(said.now(), usegmt=True))
            for name, value in {**(headers or {}), "Content-Length": str(len(raw))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            """Standard error is the test's."""

    return Handler


@contextmanager
def running_metadata() -> Iterator[MetadataStandIn]:
    server = MetadataStandIn()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.end()
        thread.join(LIMIT_S)
