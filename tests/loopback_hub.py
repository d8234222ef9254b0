"""A Hub on this machine: as much of its HTTP interface as pushing and loading need, with a record of every request."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote

import yaml


class LoopbackHub:
    """Serves repositories from memory; use it as a context manager.

    Attributes:
        repositories (`dict`): By `(kind, name)`: `private`, `files` (content by path), `messages` of commits, and
            `branches` (files by name) beside the first.
        requests (`list`): Method and path of every request.
        ranges (`list`): File, first and last byte of every request for a part of a file.
        created (`list`): Content of every request to make a repository.
        denied (`int`): Status with which requests that write are refused, 0 for none.
        meanwhile (`dict`): What is called, once, before the first request for something is answered, by what is wanted
            of a repository: `""` (what it is), `"preupload/main"` or `"commit/main"`.
    """

    def __init__(self):
        self.repositories, self.requests, self.created, self.denied = {}, [], [], 0
        self.meanwhile, self.ranges = {}, []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def add(self, kind, name, *, private, files=()):
        files = {".gitattributes": b""} | dict(files)
        self.repositories[kind, name] = {"private": private, "files": files, "messages": [], "branches": {}}
        return self.repositories[kind, name]

    def stand_in(self, monkeypatch):
        """Be the Hub that the client of this process talks to."""
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", self.endpoint)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace("https://huggingface.co", self.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

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
        if self.path.startswith("/api/"):
            self._answer(*self._get())
        else:
            self._send_file()

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(*self._post(body))

    def _answer(self, status, content, error=None):
        body = json.dumps(content).encode()
        self._reply(status, body, {"Content-Type": "application/json"} | ({"X-Error-Code": error} if error else {}))

    def _reply(self, status, body, headers):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_file(self):
        """Answer `[datasets/]ORG/NAME/resolve/REVISION/PATH`."""
        path = unquote(self.path.split("?")[0])
        self.hub.requests.append((self.command, path))
        kinds = re.fullmatch(r"/(datasets/|spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path).groups()
        kind, name, revision, file = kinds
        repository = self.hub.repositories.get(((kind or "models/").removesuffix("s/"), name))
        files = {} if repository is None else _files(repository, revision)
        if file not in files:
            missing = "RepoNotFound" if repository is None else "EntryNotFound"
            self._reply(404, b"", {"X-Error-Code": missing})
        else:
            digest = hashlib.sha1(files[file]).hexdigest()
            headers = {"ETag": f'"{digest}"', "X-Repo-Commit": _commit(repository, _branch(repository, revision))}
            if asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                self.hub.ranges.append((file, *map(int, asked.groups())))
                self._reply(206, files[file][int(asked[1]) : int(asked[2]) + 1], headers)
            else:
                self._reply(200, files[file], headers)

    def _route(self):
        """Kind and name of the repository, and what is wanted of it."""
        path = unquote(self.path.split("?")[0])
        self.hub.requests.append((self.command, path))
        _, api, kinds, *rest = path.split("/")
        assert api == "api"
        self.hub.meanwhile.pop("/".join(rest[2:]), lambda: None)()
        return kinds.removesuffix("s"), "/".join(rest[:2]), "/".join(rest[2:])

    def _get(self):
        kind, name, wanted = self._route()
        if kind == "whoami-v2":
            return 200, {"name": "lab", "type": "user"}
        repository = self.hub.repositories.get((kind, name))
        if repository is None:
            return 404, {"error": "Repository not found"}, "RepoNotFound"
        what, revision, *below = f"{wanted or ''}/".split("/")
        files = _files(repository, revision or "main")
        if what == "tree":
            return 200, _tree(files, "/".join(below).strip("/"), "recursive=true" in self.path.lower())
        assert what in ("", "revision"), wanted
        siblings = [{"rfilename": path} for path in files]
        about = {"id": name, "private": repository["private"], "siblings": siblings, "tags": []}
        return 200, about | {"sha": _commit(repository, _branch(repository, revision))}

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
        repository = self.hub.repositories[kind, name]
        what, _, revision = wanted.partition("/")
        if what == "branch":
            repository["branches"].setdefault(revision, dict(repository["files"]))
            return 200, {}
        if what == "paths-info":
            paths = dict(parse_qsl(body.decode())) if not body.startswith(b"{") else json.loads(body)
            files = _files(repository, revision)
            wanted = paths["paths"] if isinstance(paths["paths"], list) else [paths["paths"]]
            return 200, [_entry(path, files[path]) for path in wanted if path in files]
        if what == "preupload":
            return 200, {
                "files": [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
            }
        assert what == "commit", wanted
        files = _files(repository, revision)
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                repository["messages"].append(value["summary"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                assert (line["key"], value["encoding"]) == ("file", "base64")
                files[value["path"]] = base64.b64decode(value["content"])
        return 200, {"commitUrl": f"{self.hub.endpoint}/{name}/commit/0", "commitOid": _commit(repository)}


def _branch(repository, revision):
    """Name of a branch by its name or the number of its last commit; the first by every other word."""
    named = {_commit(repository, branch): branch for branch in repository["branches"]}
    revision = named.get(revision, revision)
    return revision if revision in repository["branches"] else "main"


def _commit(repository, branch="main"):
    """Number of the last commit of a branch."""
    start = f"{len(repository['messages']):032x}"
    return start + ("0" * 8 if branch == "main" else hashlib.sha1(branch.encode()).hexdigest()[:8])


def _files(repository, revision):
    """Files of a branch, by its name or the number of its last commit."""
    return repository["branches"].get(_branch(repository, revision), repository["files"])


def _tree(files, folder, recursive):
    """Files and folders below a folder."""
    start, found = f"{folder}/" if folder else "", {}
    for path, content in files.items():
        if path.startswith(start):
            parts = path[len(start) :].split("/")
            for n_parts in range(1, len(parts) if recursive else min(len(parts), 2)):
                name = start + "/".join(parts[:n_parts])
                found[name] = {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}
            if recursive or len(parts) == 1:
                found[path] = _entry(path, content)
    return list(found.values())


def _entry(path, content):
    return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
