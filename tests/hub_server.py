"""A Hugging Face Hub on loopback: it speaks the hub's protocol for files, and fails in the ways a test asks for."""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import threading
import time
import urllib.parse
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1 << 16  # bytes from which the hub keeps a file apart from the repository, on another host


@dataclasses.dataclass
class Faults:
    """What goes wrong, and how often: a count of -1 is for ever.

    Attributes:
        status: With which HTTP status requests are refused, `refusals` times.
        cut: After how many bytes a file's connection breaks, `cuts` times.
        broken: How many answers have one byte changed.
        truncated: How many answers end early without saying so.
        delay: Seconds before every answer.
    """

    status: int = 0
    refusals: int = 0
    cut: int = 0
    cuts: int = 0
    broken: int = 0
    truncated: int = 0
    delay: float = 0.0

    def take(self, name):
        """Whether this fault is due; counts it."""
        left = getattr(self, name)
        if left > 0:
            setattr(self, name, left - 1)
        return left != 0


class Hub(http.server.ThreadingHTTPServer):
    """The server.

    Attributes:
        files: `{(repository, file): path or bytes}`; those of the repository "plain" are also served as any web server
            would, below `/plain/`.
        revisions: Names of the one commit that every repository has.
        private: Repositories that a token is needed for, to read or to write.
        requests: `(method, path, Range header)` of all that was asked.
        faults: A `Faults`.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.private, self.requests, self.faults = {}, {}, [], Faults()
        self.stored = {}  # what was sent and is not yet in a commit, by its SHA-256
        self.revisions = ("main", COMMIT)
        self.lock = threading.Lock()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def content(self, repository, file):
        found = self.files.get((repository, file))
        return found.read_bytes() if isinstance(found, Path) else found

    def downloads(self):
        """The paths of files that were asked for, without the questions about them."""
        return [path for method, path, _ in self.requests if method == "GET" and path.endswith(".safetensors")]


@contextlib.contextmanager
def running():
    """A hub that runs until the end of the block."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._receive()

    def do_PUT(self):
        self._receive()

    def _path(self):
        """The path that is asked for, or None if the request was refused."""
        hub, faults = self.server, self.server.faults
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        with hub.lock:
            hub.requests.append((self.command, path, self.headers.get("Range")))
            refused = faults.status and faults.take("refusals")
        time.sleep(faults.delay)
        if not refused:
            return path
        self._send(faults.status, b"the test wants it so", {"X-Error-Message": "the test wants it so"})

    def _answer(self):
        hub, path = self.server, self._path()
        if path is None:
            return None
        if path.startswith("/stored/"):
            return self._stored(path)
        if path.startswith("/plain/"):
            content = hub.content("plain", path.removeprefix("/plain/"))
            return self._send(404, b"", {}) if content is None else self._send(200, content, {})
        if path.startswith("/api/models/"):
            return self._list(path)
        repository, _, rest = path[1:].partition("/resolve/")
        revision, _, file = rest.partition("/")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if hub.private.get(repository, token) != token or not any(name == repository for name, _ in hub.files):
            return self._send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        if revision not in hub.revisions:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        content = hub.content(repository, file)
        if content is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        facts = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if len(content) < LARGE:
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return self._send(200, content, facts | {"ETag": f'"{git}"'})
        facts |= {
            "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"http://localhost:{hub.server_port}/stored/{repository}/{file}",
        }
        return self._send(302, b"", facts)

    def _list(self, path):
        """What a repository holds: its commit, or its files."""
        repository, what, _ = path.removeprefix("/api/models/").rsplit("/", 2)
        files = sorted(file for name, file in self.server.files if name == repository)
        if what == "revision":
            listed = [{"rfilename": file} for file in files]
            return self._json({"id": repository, "modelId": repository, "sha": COMMIT, "siblings": listed})
        contents = {file: self.server.content(repository, file) for file in files}
        return self._json(
            [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in contents.items()
            ]
        )

    def _receive(self):
        """The steps of an upload: a repository, how each file is to be sent, the large ones, and the commit."""
        hub, path = self.server, self._path()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path is None:
            return None
        if path.startswith("/sent/"):
            hub.stored[path.removeprefix("/sent/")] = body
            return self._send(200, b"", {})
        if path == "/api/repos/create":
            given = json.loads(body)
            return self._json({"url": f"{hub.address}/{given['organization']}/{given['name']}"})
        if path == "/api/validate-yaml":  # of a model card
            return self._json({"errors": [], "warnings": []})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                load | {"actions": {"upload": {"href": f"{hub.address}/sent/{load['oid']}"}}}
                for load in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects}, "application/vnd.git-lfs+json")
        repository, what, revision = path.removeprefix("/api/models/").rsplit("/", 2)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if hub.private.get(repository, token) != token:
            return self._send(403, b"", {"X-Error-Message": "You have no write access"})
        if what == "branch":
            hub.revisions += (revision,)
            return self._json({})
        if what == "preupload":
            files = [
                {
                    "path": item["path"],
                    "uploadMode": "lfs" if item["size"] >= LARGE else "regular",
                    "shouldIgnore": False,
                }
                for item in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                hub.files[repository, value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                hub.files[repository, value["path"]] = hub.stored[value["oid"]]
        return self._json({"commitUrl": f"{hub.address}/{repository}/commit/{COMMIT}", "commitOid": COMMIT})

    def _json(self, record, kind="application/json"):
        self._send(200, json.dumps(record).encode(), {"Content-Type": kind})

    def _stored(self, path):
        hub, faults = self.server, self.server.faults
        repository, _, file = path.removeprefix("/stored/").rpartition("/")
        content = hub.content(repository, file)
        with hub.lock:
            if faults.broken and faults.take("broken"):
                middle = len(content) // 2
                content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            if faults.truncated and faults.take("truncated"):
                content = content[: len(content) // 2]
            cut = faults.cut if faults.cuts and faults.take("cuts") else None
        status, facts, first = 200, {"Accept-Ranges": "bytes"}, 0
        if asked := self.headers.get("Range"):
            first = int(asked.removeprefix("bytes=").partition("-")[0])
            status = 206
            facts["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._send(status, content[first:], facts, cut)

    def _send(self, status, body, headers, cut=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
