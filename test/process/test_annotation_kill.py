"""The page's server is killed at any moment: no acknowledged label is lost, and at most two seconds of drafts."""

from __future__ import annotations

import http.client
import json
import random
import signal
import threading
import time
import zlib

import numpy as np
from annotate_fixtures import SIZE, Person, Server, fill_pool, open_pool, serving

from ssada_core.annotation.segments import superpixels
from ssada_core.data.encodings import encode_png

KILLS = 6


class Worker:
    """Submits label after label, as fast as the server takes them, and remembers which were acknowledged."""

    def __init__(self, server: Server, queries: list[str]) -> None:
        self._server, self._queries = server, queries
        self._rng = np.random.default_rng(1)
        self.labels: dict[str, list[bytes]] = {query: [] for query in queries}
        self.drafts: dict[str, bytes] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _work(self) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            query = self._queries[number % len(self._queries)]
            label = self._rng.integers(0, 11, SIZE).astype(np.uint8)
            draft = np.vstack([label, np.ones_like(label)])
            if self._send("PUT", f"/api/queries/{query}/draft", draft) is not None:
                self.drafts[query] = draft.tobytes()
            answer = self._send("POST", f"/api/queries/{query}/label?confirmed=true", label)
            if answer is not None and answer["status"] == "accepted":
                self.labels[query].append(label.tobytes())
                self.drafts.pop(query, None)

    def _send(self, method: str, path: str, array: np.ndarray) -> dict | None:
        connection = http.client.HTTPConnection(self._server.origin.removeprefix("http://"), timeout=10)
        try:
            named = {"X-Person": "ada", "X-Holder": "ada"}
            connection.request(method, path, encode_png(array), named)
            answer = connection.getresponse()
            body = answer.read()
            return json.loads(body) if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            time.sleep(0.05)  # it was killed: the answer never came
            return None
        finally:
            connection.close()


def test_no_acknowledged_label_or_draft_is_lost(tmp_path):
    root = tmp_path / "pool"
    queries = fill_pool(root, frames=2)
    rng = random.Random(7)
    with serving(root) as server:
        worker = Worker(server, queries)
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.3, 1.2))
            server.stop(signal.SIGKILL)
            server.start()
        time.sleep(0.5)
        worker.stop()
        for query, draft in worker.drafts.items():
            connection = http.client.HTTPConnection(server.origin.removeprefix("http://"), timeout=10)
            connection.request("GET", f"/api/queries/{query}/draft", headers={"X-Person": "ada"})
            assert zlib.decompress(connection.getresponse().read()) == draft
            connection.close()
    acknowledged = sum(map(len, worker.labels.values()))
    assert acknowledged > 2 * KILLS
    with open_pool(root) as pool:
        assert pool.verify() == []
        for query, labels in worker.labels.items():
            kept = [pool.read_label(entry).tobytes() for entry in pool.label_history(query)]
            assert [label for label in kept if label in set(labels)] == labels
            # What was stored but not acknowledged, because the kill came between, is at most one a kill.
            assert len(kept) - len(labels) <= KILLS


def test_at_most_two_seconds_of_a_draft_are_lost(tmp_path, watched_page):
    root = tmp_path / "pool"
    first, *_ = fill_pool(root)
    with open_pool(root) as pool:
        patches = superpixels(pool.image(pool.by_query(first)))[2]
        base = pool.prediction(pool.by_query(first))[0]
    rng = random.Random(3)
    expected = base.copy()
    with serving(root) as server:
        person = Person(watched_page(server.origin), server.address)
        person.open(first)
        for _ in range(3):
            clicks = []
            end = time.monotonic() + rng.uniform(2.5, 4.0)
            while time.monotonic() < end:  # without a pause, so that a save that waits for one would never come
                x, y, value = rng.randrange(SIZE[1]), rng.randrange(SIZE[0]), rng.randrange(9)
                person.press(str(value + 1))
                person.click(x, y)
                clicks.append((time.monotonic(), x, y, value))
            server.stop(signal.SIGKILL)
            killed = time.monotonic()
            person.page.goto("about:blank")  # nothing of the page survives
            server.start()
            person.page.goto(f"{server.address}#/q/{first}")
            person.wait_for(first)
            found = np.array(
                person.page.evaluate(
                    "async id => { const headers = {'x-person': localStorage.getItem('ssada-person')}; "
                    "const answer = await fetch(`/api/queries/${id}/draft`, {headers}); "
                    "return [...new Uint8Array(await answer.arrayBuffer())]; }",
                    first,
                ),
                np.uint8,
            ).reshape(2, *SIZE)[0]
            states = [expected.copy()]
            for when, x, y, value in clicks:
                expected[patches == patches[y, x]] = value
                states.append(expected.copy())
                if when < killed - 2.0:
                    states = states[-1:]  # older ones would mean that more was lost
            assert any(np.array_equal(state, found) for state in states)
            expected = found.copy()
