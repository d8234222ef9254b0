"""A Hub on this machine: as much of its HTTP interface as pushing needs, with a record of every request."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml


class LoopbackHub:
    """Serves repositories from memory; use it as a context manager.

    Attributes:
        repositories (`dict`): By `(kind, name)`: `private`, `files` (content by path) and `messages` of commits.
        requests (`list`): Method and path of every request.
        created (`list`): Content of every request to make a repository.
        denied (`int`): Status with which requests that write are refused, 0 for none.
        meanwhile (`dict`): What is called, once, before the first request for something is answered, by what is wanted
            of a repository: `""` (what it is), `"preupload/main"` or `"commit/main"`.
    """

    def __init__(self):
        self.repositories, self.requests, self.created, self.denied = {}, [], [], 0
        self.meanwhile = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, kind, name, *, private, files=()):
        files = {".gitattributes": b""} | dict(files)
        self.repositories[kind, name] = {"private": private, "files": files, "messages": []}
        return self.repositories[kind, name]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer(*self._get())

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(*self._post(body))

    def _answer(self, status, content, error=None):
        body = json.dumps(content).encode()
        self.send_response(status)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _route(self):
        """Kind and name of the repository, and what is wanted of it."""
        path = self.path.split("?")[0]
        self.hub.requests.append((self.command, path))
        _, api, kinds, *rest = path.split("/")
        assert api == "api"
        self.hub.meanwhile.pop("/".join(rest[2:]), lambda: None)()
        return kinds.removesuffix("s"), "/".join(rest[:2]), "/".join(rest[2:])

    def _get(self):
        kind, name, wanted = self._route()
        repository = self.hub.repositories.get((kind, name))
        if repository is None:
            return 404, {"error": "Repository not found"}, "RepoNotFound"
        if wanted == "tree/main":
            files = repository["files"].items()
            return 200, [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in files]
        assert wanted == "", wanted
        siblings = [{"rfilename": path} for path in repository["files"]]
        return 200, {"id": name, "private": repository["private"], "siblings": siblings, "sha": "0" * 40, "tags": []}

    def _post(self, body):
        kind, name, wanted = self._route()
        if self.hub.denied:
            return self.hub.denied, {"error": "You have no right to write here"}
        if (kind, name) == ("repo", "create"):
            content = json.loads(body)
            self.hub.created.append(content)
            name = f"{content['organization']}/{content['name']}"
            key = (content.get("type", "model"), name)
            if key in self.hub.repositories:
                return 409, {"error": "You already created this repo", "url": f"{self.hub.endpoint}/{name}"}
            self.hub.add(*key, private=content.get("private") is True or content.get("visibility") == "private")
            return 200, {"url": f"{self.hub.endpoint}/{'datasets/' if key[0] == 'dataset' else ''}{name}"}
        if kind == "validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            return 200, {"warnings": [], "errors": []}
        if wanted == "preupload/main":
            return 200, {
                "files": [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
            }
        assert wanted == "commit/main", wanted
        repository = self.hub.repositories[kind, name]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                repository["messages"].append(value["summary"])
            elif line["key"] == "deletedFile":
                del repository["files"][value["path"]]
            else:
                assert (line["key"], value["encoding"]) == ("file", "base64")
                repository["files"][value["path"]] = base64.b64decode(value["content"])
        return 200, {"commitUrl": f"{self.hub.endpoint}/{name}/commit/0", "commitOid": "0" * 40}
