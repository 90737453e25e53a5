"""A Hugging Face Hub server on the loopback interface that implements the file API and can inject faults."""

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
LARGE = 1 << 16  # bytes; files of this size and larger are stored outside the repository, on another host


@dataclasses.dataclass
class Faults:
    """Faults to inject, and how many times; a count of -1 means always.

    Attributes:
        status: HTTP status of refused requests.
        refusals: Number of requests to refuse.
        cut: Number of bytes after which the connection breaks during a file.
        cuts: Number of broken connections.
        broken: Number of files to send with one byte changed.
        truncated: Number of files to send truncated, with a matching `Content-Length`.
        delay: Seconds before every response.
    """

    status: int = 0
    refusals: int = 0
    cut: int = 0
    cuts: int = 0
    broken: int = 0
    truncated: int = 0
    delay: float = 0.0

    def take(self, name):
        """Return whether this fault is due, and decrement its count."""
        count = getattr(self, name)
        if count > 0:
            setattr(self, name, count - 1)
        return count != 0


class Hub(http.server.ThreadingHTTPServer):
    """The HTTP server.

    Attributes:
        files: `{(repository, file): path or bytes}`. The files of the repository "plain" are also available below
            `/plain/`, as from an ordinary web server.
        revisions: Names of the only commit of every repository.
        private: `{repository: token}` of repositories that need a token for reading and writing.
        requests: `(method, path, Range header)` of every request.
        faults: The `Faults` to inject.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.private, self.requests, self.faults = {}, {}, [], Faults()
        self.stored = {}  # uploaded files that are not in a commit yet, by SHA-256
        self.revisions = ("main", COMMIT)
        self.lock = threading.Lock()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def content(self, repository, file):
        content = self.files.get((repository, file))
        return content.read_bytes() if isinstance(content, Path) else content

    def downloads(self):
        """Return the paths of the downloaded weight files, without HEAD requests."""
        return [path for method, path, _ in self.requests if method == "GET" and path.endswith(".safetensors")]


@contextlib.contextmanager
def running():
    """Run a hub until the end of the `with` block."""
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
        self._respond()

    def do_GET(self):
        self._respond()

    def do_POST(self):
        self._receive()

    def do_PUT(self):
        self._receive()

    def _path(self):
        """Return the request's path, or None if the request was refused."""
        hub, faults = self.server, self.server.faults
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        with hub.lock:
            hub.requests.append((self.command, path, self.headers.get("Range")))
            refused = faults.status and faults.take("refusals")
        time.sleep(faults.delay)
        if not refused:
            return path
        self._send(faults.status, b"injected fault", {"X-Error-Message": "injected fault"})

    def _respond(self):
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
        headers = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if len(content) < LARGE:
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return self._send(200, content, headers | {"ETag": f'"{git}"'})
        headers |= {
            "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"http://localhost:{hub.server_port}/stored/{repository}/{file}",
        }
        return self._send(302, b"", headers)

    def _list(self, path):
        """Send a repository's commit or its list of files."""
        repository, endpoint, _ = path.removeprefix("/api/models/").rsplit("/", 2)
        files = sorted(file for name, file in self.server.files if name == repository)
        if endpoint == "revision":
            siblings = [{"rfilename": file} for file in files]
            return self._json({"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings})
        contents = {file: self.server.content(repository, file) for file in files}
        return self._json(
            [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in contents.items()
            ]
        )

    def _receive(self):
        """Handle the steps of an upload: create the repository, choose how to send the files, store them, commit."""
        hub, path = self.server, self._path()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path is None:
            return None
        if path.startswith("/sent/"):
            hub.stored[path.removeprefix("/sent/")] = body
            return self._send(200, b"", {})
        if path == "/api/repos/create":
            request = json.loads(body)
            return self._json({"url": f"{hub.address}/{request['organization']}/{request['name']}"})
        if path == "/api/validate-yaml":  # the metadata of a model card
            return self._json({"errors": [], "warnings": []})
        if path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                load | {"actions": {"upload": {"href": f"{hub.address}/sent/{load['oid']}"}}}
                for load in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": objects}, "application/vnd.git-lfs+json")
        repository, endpoint, revision = path.removeprefix("/api/models/").rsplit("/", 2)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if hub.private.get(repository, token) != token:
            return self._send(403, b"", {"X-Error-Message": "You have no write access"})
        if endpoint == "branch":
            hub.revisions += (revision,)
            return self._json({})
        if endpoint == "preupload":
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
        status, headers, first = 200, {"Accept-Ranges": "bytes"}, 0
        if range_header := self.headers.get("Range"):
            first = int(range_header.removeprefix("bytes=").partition("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._send(status, content[first:], headers, cut)

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
