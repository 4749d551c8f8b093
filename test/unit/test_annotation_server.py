"""The annotation page's server against those who mean no good: real requests, byte by byte, to a real server."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from annotate_fixtures import SIZE, Server, fill_pool, open_pool, serving

from ssada_core.annotation import guard
from ssada_core.annotation.desk import Desk, Draft
from ssada_core.annotation.settings import AnnotateSettings
from ssada_core.data.encodings import encode_png
from ssada_core.errors import ConfigError
from ssada_core.store.pool import FramePool

TOKEN = "0123456789abcdef0123456789abcdef"


class Client:
    """Sends exactly what it is told to."""

    def __init__(self, server: Server) -> None:
        self.host, _, port = server.origin.removeprefix("http://").rpartition(":")
        self.port = int(port)

    def send(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host="host" in {name.lower() for name in named})
        if body is not None and "content-length" not in {name.lower() for name in named}:
            named["Content-Length"] = str(len(body))
        for name, value in named.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        result = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return result

    def status(self, method: str, path: str, body: bytes | None = None, **headers: str) -> int:
        return self.send(method, path, body, **headers)[0]

    def post(self, path: str, value: object = None, person: str = "ada", holder: str = "") -> tuple[int, dict]:
        named = {"X_Person": person, "X_Holder": holder or person, "X_Name": person, "Content_Type": "application/json"}
        status, _, data = self.send("POST", path, json.dumps(value or {}).encode(), **named)
        return status, json.loads(data)


@contextmanager
def open_server(root: Path, **annotate: object) -> Iterator[Client]:
    with serving(root, **annotate) as server:
        yield Client(server)


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("served") / "pool"
    return root, fill_pool(root)


@pytest.fixture(scope="module")
def client(pool) -> Iterator[Client]:
    with open_server(pool[0], max_upload_mb=0.2) as opened:
        yield opened


@pytest.fixture(scope="module")
def guarded(tmp_path_factory) -> Iterator[Client]:
    root = tmp_path_factory.mktemp("guarded") / "pool"
    fill_pool(root)
    with open_server(root, host="0.0.0.0", token=TOKEN) as opened:
        opened.host = "127.0.0.1"
        yield opened


def street() -> np.ndarray:
    label = np.full(SIZE, 3, np.uint8)
    label[:60] = 0
    return label


def test_every_answer_carries_the_headers(client: Client):
    for path in ("/", "/page/main.js", "/api/state", "/nothing", "/api/queries/nothing/image"):
        _, headers, _ = client.send("GET", path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/page/../server.py",
        "/page/..%2fserver.py",
        "/page/%2e%2e/server.py",
        "/page//etc/passwd",
        "/page/..\\server.py",
        "/page/main.js%00.css",
        "/api/queries/..%2f..%2fpool.sqlite/image",
        "/api/queries/%2e%2e%2f%2e%2e/image",
        "/api/queries/../../pool.sqlite/image",
        "/../../../../etc/passwd",
        "/pool.sqlite",
        "/annotate.sqlite",
        "/images/front",
        "/openapi.json",
        "/docs",
    ],
)
def test_no_path_leaves_the_pool(client: Client, path: str):
    status, _, body = client.send("GET", path)
    assert status == 404
    assert b"root:" not in body
    assert b"SQLite" not in body


@pytest.mark.parametrize("query_id", ["abcdef-000001", "1", "", "x' OR 1=1 --", "ABCDEF-000001", "0" * 3000, "..."])
def test_what_is_no_query_is_not_found(client: Client, query_id: str):
    from urllib.parse import quote

    name = quote(query_id, safe="")
    for what in ("image", "thumbnail", "prediction", "label", "draft", "superpixels/0"):
        assert client.status("GET", f"/api/queries/{name}/{what}") == 404
    for what in ("open", "keep"):
        assert client.post(f"/api/queries/{name}/{what}")[0] == 404
    assert client.status("POST", f"/api/queries/{name}/label", encode_png(street())) == 404
    assert client.status("PUT", f"/api/queries/{name}/draft", encode_png(np.vstack([street()] * 2))) == 404


def test_a_frame_that_was_never_asked_for_is_not_shown(tmp_path: Path):
    root = tmp_path / "pool"
    fill_pool(root)
    with open_pool(root) as opened:
        noise = np.random.default_rng(5).integers(0, 255, (*SIZE, 3), np.uint8)
        added = opened.add(noise, camera="front", stamp_ns=99 * 10**9).record
        pool_id = opened.pool_id
    with open_server(root) as client:
        assert client.status("GET", f"/api/queries/{pool_id}-{added.id:06d}/image") == 404


@pytest.mark.parametrize("level", ["-1", "5", "99999999999999999999", "x"])
def test_levels_that_do_not_exist_are_refused(client: Client, pool, level: str):
    assert client.status("GET", f"/api/queries/{pool[1][0]}/superpixels/{level}") in (404, 422)


def test_uploads_above_the_limit_are_refused_whatever_they_say_of_themselves(client: Client, pool):
    path = f"/api/queries/{pool[1][0]}/label"
    large = bytes(300_000)
    assert client.status("POST", path, large) == 413
    assert client.status("POST", path, b"", Content_Length="999999999999") == 413
    for length in ("-5", "1e3", "٣"):
        assert _raw(client, f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n") in (
            400,
            413,
        )
    chunks = b"".join(b"4000\r\n" + bytes(0x4000) + b"\r\n" for _ in range(20))
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert _raw(client, head, chunks + b"0\r\n\r\n") == 413
    assert client.status("GET", "/api/state") == 200  # and it still answers


def _raw(client: Client, head: str, body: bytes = b"") -> int:
    with socket.create_connection((client.host, client.port), timeout=30) as connection:
        connection.sendall(head.encode())
        with suppress(OSError):  # it may hang up on the rest
            connection.sendall(body)
        return int(connection.recv(4096).split()[1])


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_requests_of_other_sites_are_refused(client: Client, pool, headers: dict[str, str]):
    query = f"/api/queries/{pool[1][0]}"
    assert (
        client.status("POST", f"{query}/reject", b'{"reason": "x"}', Content_Type="application/json", **headers) == 403
    )
    assert client.status("POST", f"{query}/label", encode_png(street()), **headers) == 403
    assert client.status("GET", f"{query}/image", **headers) == 403
    with open_pool(pool[0]) as opened:
        assert opened.by_query(pool[1][0]).state == "queried"


def test_a_link_from_elsewhere_leads_to_the_page_and_to_nothing_else(client: Client, pool):
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert client.status("GET", "/", **link) == 200
    assert client.status("GET", "/api/state", **link) == 403
    own = {"Sec_Fetch_Site": "same-origin", "Origin": f"http://{client.host}:{client.port}"}
    assert client.status("POST", f"/api/queries/{pool[1][0]}/keep", b"", **own) == 200
    client.post(f"/api/queries/{pool[1][0]}/close", holder="api", person="api")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_another_name_that_leads_here_is_refused(client: Client, host: str):
    assert client.status("GET", "/api/state", Host=host) == 421


def test_without_the_token_only_the_door_is_open(guarded: Client):
    for path in ("/api/state", "/page/main.js", "/page/index.html", "/nothing"):
        assert guarded.status("GET", path) == 401
    status, _, body = guarded.send("GET", "/")
    assert (status, b"password" in body, b"main.js" in body) == (401, True, False)
    assert guarded.status("GET", "/page/login.js") == 200
    for wrong in ("", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN):
        assert guarded.status("GET", "/api/state", Authorization=wrong) == 401
    assert guarded.status("GET", "/api/state", Cookie=f"{guard.COOKIE}={TOKEN}") == 401  # the token is no cookie


def test_the_token_opens_and_the_cookie_does_not_tell_it(guarded: Client):
    assert guarded.status("GET", "/api/state", Authorization=f"Bearer {TOKEN}") == 200
    body = json.dumps({"token": TOKEN}).encode()
    assert guarded.status("POST", "/login", b'{"token": "wrong"}', Content_Type="application/json") == 401
    status, headers, _ = guarded.send("POST", "/login", body, Content_Type="application/json")
    cookie = headers["set-cookie"]
    assert status == 200
    assert TOKEN not in cookie
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert guarded.status("GET", "/api/state", Cookie=cookie.partition(";")[0]) == 200
    foreign = {"Cookie": cookie.partition(";")[0], "Origin": "http://evil.example"}
    assert guarded.status("GET", "/api/state", **foreign) == 403


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"host": "0.0.0.0"}, "there is no token"),
        ({"host": "192.168.1.5"}, "there is no token"),
        ({"host": "0.0.0.0", "token": "short"}, "5 characters"),
        ({"token": "short"}, "5 characters"),
    ],
)
def test_an_open_door_is_refused_before_anything_listens(values, words):
    with pytest.raises(ConfigError, match=words):
        AnnotateSettings(**values).check()


def test_secrets_are_compared_in_constant_time_both_of_them_always(monkeypatch):
    compared = []
    real = guard.hmac.compare_digest
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda a, b: compared.append((len(a), len(b))) or real(a, b))
    door = guard.Guard(None, AnnotateSettings(token=TOKEN))
    for headers in (
        {},
        {"authorization": f"Bearer {TOKEN}"},
        {"cookie": f"{guard.COOKIE}=x"},
        {"authorization": "Bearer é"},
    ):
        compared.clear()
        door.known(headers)
        assert compared == [(32, 32), (32, 32)]  # digests: not even the length shows


def test_somebody_elses_query_is_taken_and_nobodys_work_is_overwritten(tmp_path: Path):
    root = tmp_path / "pool"
    first, *_ = fill_pool(root)
    with open_server(root, lease_s=600) as client:
        query = f"/api/queries/{first}"
        assert client.post(f"{query}/open", person="ada")[0] == 200
        status, answer = client.post(f"{query}/open", person="bob")
        assert (status, "being edited by ada" in answer["why"]) == (409, True)
        assert client.post(f"{query}/open?force=true", person="bob")[0] == 409  # not by force either
        for method, path, body in (
            ("PUT", "draft", encode_png(np.vstack([street(), street() * 0]))),
            ("POST", "label", encode_png(street())),
        ):
            named = {"X_Person": "bob", "X_Holder": "bob"}
            assert client.status(method, f"{query}/{path}", body, **named) == 409
        for path in ("skip", "reject"):
            assert client.post(f"{query}/{path}", {"reason": "mine"}, person="bob")[0] == 409
        assert client.post(f"{query}/open", person="ada", holder="tab 2")[0] == 409
        assert client.post(f"{query}/open?force=true", person="ada", holder="tab 2")[0] == 200
        client.post(f"{query}/close", person="bob")  # gives nothing back that is not bob's
        assert client.post(f"{query}/open", person="bob")[0] == 409
        client.post(f"{query}/close", person="ada", holder="tab 2")
        assert client.post(f"{query}/open", person="bob")[0] == 200


def test_an_answer_that_came_meanwhile_is_not_replaced_unseen(tmp_path: Path):
    root = tmp_path / "pool"
    first, *_ = fill_pool(root)
    with open_server(root) as client, open_pool(root) as opened:
        _, info = client.post(f"/api/queries/{first}/open")
        opened.accept_label(first, np.full(SIZE, 5, np.uint8), "ros")  # over another way
        named = {"X_Person": "ada", "X_Holder": "ada", "X_Name": "Ada"}
        path = f"/api/queries/{first}/label?versions={info['versions']}"
        status, _, body = client.send("POST", path, encode_png(street()), **named)
        assert (status, b"ros answered" in body) == (409, True)
        assert opened.label(opened.by_query(first))[0, 0] == 5
        path = f"/api/queries/{first}/label?versions={info['versions'] + 1}"
        assert json.loads(client.send("POST", path, encode_png(street()), **named)[2])["status"] == "accepted"
        assert [entry.annotator for entry in opened.label_history(first)] == ["ros", "Ada"]


def test_a_draft_remembers_the_labels_it_knew_of(tmp_path: Path):
    root = tmp_path / "pool"
    first, *_ = fill_pool(root)
    draft = encode_png(np.vstack([street(), street() * 0 + 1]))
    query = f"/api/queries/{first}"

    def drafted(client: Client, person: str) -> bool:
        state = json.loads(client.send("GET", "/api/state", None, X_Person=person)[2])
        return next(each["draft"] for each in state["queries"] if each["id"] == first)

    with open_server(root) as client, open_pool(root) as opened:
        bob = {"X_Person": "bob", "X_Holder": "bob", "X_Name": "bob"}
        assert client.post(f"{query}/open", person="bob")[0] == 200
        assert client.status("PUT", f"{query}/draft?versions=0", draft, **bob) == 200
        client.post(f"{query}/close", person="bob")
        assert client.post(f"{query}/open", person="ada")[1]["draft"]["name"] == "bob", "nobody has answered yet"
        assert drafted(client, "ada")
        opened.accept_label(first, np.full(SIZE, 5, np.uint8), "ada")
        assert client.post(f"{query}/open", person="ada")[1]["draft"] is None, "an answer is there: no others' drafts"
        assert client.status("GET", f"{query}/draft", None, X_Person="ada") == 204
        assert (drafted(client, "ada"), drafted(client, "bob")) == (False, True)
        client.post(f"{query}/close", person="ada")
        _, info = client.post(f"{query}/open", person="bob")
        assert (info["versions"], info["draft"]["versions"]) == (1, 0)
        for wrong in ("-1", "x"):
            assert client.status("PUT", f"{query}/draft?versions={wrong}", draft, **bob) == 422
        assert client.status("PUT", f"{query}/draft?versions=99999999999999999999", draft, **bob) == 200
        assert client.post(f"{query}/open", person="bob")[1]["draft"]["versions"] == 1
        assert client.status("DELETE", f"{query}/draft", None, **bob) == 200
        assert client.post(f"{query}/open", person="bob")[1]["draft"] is None


def test_ones_own_held_label_is_no_conflict_with_ones_draft(tmp_path: Path):
    root = tmp_path / "pool"
    first, *_ = fill_pool(root)
    query, ada = f"/api/queries/{first}", {"X_Person": "ada", "X_Holder": "ada", "X_Name": "Ada"}
    everything = encode_png(np.full(SIZE, 3, np.uint8))
    with open_server(root) as client:
        client.post(f"{query}/open")
        client.status(
            "PUT", f"{query}/draft?versions=0", encode_png(np.full((2 * SIZE[0], SIZE[1]), 3, np.uint8)), **ada
        )
        held = json.loads(client.send("POST", f"{query}/label?versions=0", everything, **ada)[2])
        assert held["status"] == "held"
        _, info = client.post(f"{query}/open")
        assert (info["versions"], info["draft"]["versions"]) == (1, 1)


def test_drafts_of_an_older_release_are_kept(tmp_path: Path):
    import sqlite3

    with sqlite3.connect(tmp_path / "annotate.sqlite") as raw:
        raw.execute(
            "CREATE TABLE drafts (query_id TEXT NOT NULL, person TEXT NOT NULL, name TEXT NOT NULL, "
            "saved_at REAL NOT NULL, png BLOB NOT NULL, PRIMARY KEY (query_id, person)) WITHOUT ROWID"
        )
        raw.execute("INSERT INTO drafts VALUES ('q', 'ada', 'Ada', 1.0, x'00')")
    raw.close()
    for _ in range(2):
        desk = Desk(tmp_path, 45.0)
        assert desk.draft("q", "ada") == Draft("ada", "Ada", 1.0, b"\0", 0)
        desk.close()


def test_a_lease_ends_by_itself(tmp_path: Path):
    import time

    root = tmp_path / "pool"
    first, *_ = fill_pool(root)
    with open_server(root, lease_s=2) as client:
        assert client.post(f"/api/queries/{first}/open", person="ada")[0] == 200
        assert client.post(f"/api/queries/{first}/open", person="bob")[0] == 409
        time.sleep(2.2)
        assert client.post(f"/api/queries/{first}/open", person="bob")[0] == 200


def test_a_rejected_frame_is_gone_for_good(tmp_path: Path):
    root = tmp_path / "pool"
    first, second, _ = fill_pool(root)
    with open_server(root) as client, open_pool(root) as opened:
        file = root / opened.by_query(first).image_file
        assert file.exists()
        assert client.post(f"/api/queries/{first}/reject", {"reason": "  "})[0] == 409  # why?
        assert client.post(f"/api/queries/{first}/reject", {"reason": "a face"})[0] == 200
        assert not file.exists()
        for what in ("image", "thumbnail", "prediction", "superpixels/0"):
            assert client.status("GET", f"/api/queries/{first}/{what}") == 404
        assert first not in client.send("GET", "/api/state")[2].decode()
        assert client.post(f"/api/queries/{second}/skip", {"reason": "x" * 10_000})[0] == 200
        assert len(opened.by_query(second).reason) == 300
    assert isinstance(opened, FramePool)
