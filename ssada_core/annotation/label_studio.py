"""A Label Studio project by its SDK: frames with predictions as brush masks go there, masks come back.

Frames travel inside their tasks, as data URIs: the server needs no access to the vehicle's disk, and nothing is served
anywhere. Needs the extra ``labelstudio``; a server of one's own (``pip install label-studio``) works offline.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from ssada_core.annotation.check import LabelCheckSettings
from ssada_core.annotation.exchange import items
from ssada_core.annotation.masks import Item
from ssada_core.annotation.submit import SubmitResult, submit
from ssada_core.data.privacy import Hider
from ssada_core.data.samples import Array
from ssada_core.errors import DataError, SsadaError, require
from ssada_core.labels import IGNORE, LabelSpace
from ssada_core.store.pool import FramePool

THRESHOLD = 127
"""Hand-drawn masks are antialiased; a pixel belongs to the brush above this."""
MODEL = "ssada"
"""Model version that predictions carry where the pool does not know one."""


class LabelStudioError(SsadaError):
    """The server cannot be reached, or refuses."""


class LabelStudioProject:
    """One project on a server. It is made where it is missing; frames that are in it already are not sent again."""

    def __init__(self, url: str, token: str, title: str, space: LabelSpace) -> None:
        """Find the project, or make it.

        Args:
            url: the server's address.
            token: an access token of somebody who may write there.
            title: the project's name.
            space: the classes, one brush each.

        Raises:
            MissingExtraError: if the SDK is not installed.
            LabelStudioError: if the server cannot be reached or refuses.
            DataError: if the project is there and has other classes.
        """
        sdk: Any = require("label_studio_sdk", extra="labelstudio", purpose="a Label Studio project")
        self._brush: Any = require("label_studio_sdk.converter.brush", extra="labelstudio", purpose="brush masks")
        self._errors = (sdk.core.api_error.ApiError, require("httpx", extra="labelstudio", purpose="it").HTTPError)
        self._url = url
        self._space = space
        self._client = sdk.LabelStudio(base_url=url, api_key=token)
        with self._reported():
            self._id, config = self._find_or_make(title)
        missing = [name for name in space.classes if f"value={quoteattr(name)}" not in config]
        if missing:
            raise DataError(f"project '{title}' on {url} has no brush '{missing[0]}': give another project's name")

    def push(
        self,
        pool: FramePool,
        *,
        hider: Hider | None = None,
        on_frame: Callable[[int, int], None] = lambda *_: None,
    ) -> int:
        """Send every open question that is not there yet, with the model's prediction; returns how many.

        What ``hider`` finds is hidden in the frames that are sent, not in those of the pool.

        Raises:
            PrivacyError: if a detector fails; its frame is not sent.
            LabelStudioError: if the server refuses; what it has taken stays there.
        """
        with self._reported():
            there = {query_id for query_id, _ in self._tasks()}
            records = [record for record in pool.frames(states=["queried"]) if record.query_id not in there]
            versions = {record.query_id: record.model_version for record in records}
            sent = 0
            for item in items(pool, records, hider):
                task = self._client.tasks.create(project=self._id, data=_task_data(item))
                if item.label is not None:
                    version = versions[item.query_id] or MODEL
                    self._client.predictions.create(
                        task=task.id, model_version=version, result=self._brushes(item.label)
                    )
                sent += 1
                on_frame(sent, len(records))
        return sent

    def pull(self, pool: FramePool, settings: LabelCheckSettings | None = None) -> list[SubmitResult]:
        """Take in the newest submitted annotation of each task; what was taken before is passed over.

        Skipped tasks are skipped here as well, where the question is still open.

        Returns:
            What became of each label.

        Raises:
            LabelStudioError: if the server refuses.
            StoreError: if the pool cannot be written.
        """
        results = []
        with self._reported():
            for query_id, task in self._tasks():
                annotations = [_plain(annotation) for annotation in task.annotations or ()]
                if not annotations or not _is_asked(pool, query_id):
                    continue
                newest = max(annotations, key=lambda annotation: str(annotation.get("updated_at")))
                result = self._take(pool, query_id, newest, settings)
                if result is not None:
                    results.append(result)
        return results

    def _take(
        self, pool: FramePool, query_id: str, annotation: dict[str, Any], settings: LabelCheckSettings | None
    ) -> SubmitResult | None:
        record = pool.by_query(query_id)
        if annotation.get("was_cancelled"):
            if record.state == "queried":
                pool.skip(query_id, "skipped in Label Studio")
            return None
        try:
            label = self._label(annotation.get("result") or (), record.size)
        except DataError as error:
            return SubmitResult(query_id, "refused", str(error))
        history = pool.label_history(query_id)
        if history and np.array_equal(pool.read_label(history[-1]), label):
            return None
        who = f"Label Studio user {annotation.get('completed_by') or 'unknown'}"
        return submit(pool, query_id, label, who, settings=settings)

    def _find_or_make(self, title: str) -> tuple[int, str]:
        for project in self._client.projects.list(title=title):
            if project.title == title:
                return int(project.id), str(self._client.projects.get(id=project.id).label_config)
        made = self._client.projects.create(title=title, label_config=label_config(self._space))
        return int(made.id), str(made.label_config)

    def _tasks(self) -> Iterator[tuple[str, Any]]:
        for task in self._client.tasks.list(project=self._id, fields="all"):
            query_id = (task.data or {}).get("query_id")
            if isinstance(query_id, str):
                yield query_id, task

    def _brushes(self, label: Array) -> list[dict[str, Any]]:
        return [
            {
                "from_name": "label",
                "to_name": "image",
                "type": "brushlabels",
                "original_width": label.shape[1],
                "original_height": label.shape[0],
                "image_rotation": 0,
                "value": {
                    "format": "rle",
                    "brushlabels": [name],
                    "rle": self._brush.mask2rle((label == index).astype(np.uint8) * 255),
                },
            }
            for index, name in enumerate(self._space.classes)
            if np.any(label == index)
        ]

    def _label(self, regions: Iterable[dict[str, Any]], size: tuple[int, int]) -> Array:
        """One label of all brush strokes; where they overlap, the later one is on top, as it is shown there."""
        label = np.full(size, IGNORE, np.uint8)
        for region in regions:
            if region.get("type") != "brushlabels":
                continue
            value = region.get("value") or {}
            names, rle = value.get("brushlabels") or [], value.get("rle")
            if len(names) != 1 or names[0] not in self._space.classes or not rle:
                raise DataError(f"a brush stroke is labelled {names}: give each one class of '{self._space.name}'")
            if (region.get("original_height"), region.get("original_width")) != size:
                raise DataError("a brush stroke is of another size than its frame")
            label[self._mask(rle, size)] = self._space.classes.index(names[0])
        return label

    def _mask(self, rle: Sequence[int], size: tuple[int, int]) -> Array:
        try:
            flat = self._brush.decode_rle(rle)
        except (ValueError, IndexError, TypeError) as error:
            raise DataError(f"a brush stroke cannot be decoded ({error})") from error
        if flat.size != 4 * size[0] * size[1]:
            raise DataError(f"a brush stroke has {flat.size} values where its frame has {4 * size[0] * size[1]}")
        return np.asarray(flat.reshape(*size, 4)[..., 3] > THRESHOLD)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            status = getattr(error, "status_code", None)
            words = f"status {status}" if status else str(error) or type(error).__name__
            raise LabelStudioError(f"Label Studio at {self._url}: {words}: check address, token and project") from error


def label_config(space: LabelSpace) -> str:
    """The project's labelling interface: one brush for each class."""
    brushes = "".join(
        f'<Label value={quoteattr(name)} background="#{red:02x}{green:02x}{blue:02x}"/>'
        for name, (red, green, blue) in zip(space.classes, space.colors, strict=True)
    )
    image = '<Image name="image" value="$image" zoom="true" zoomControl="true"/>'
    return f'<View>{image}<BrushLabels name="label" toName="image">{brushes}</BrushLabels></View>'


def _task_data(item: Item) -> dict[str, str]:
    picture = base64.b64encode(item.jpeg).decode("ascii")
    return {"image": f"data:image/jpeg;base64,{picture}", "query_id": item.query_id}


def _plain(annotation: Any) -> dict[str, Any]:  # noqa: ANN401 (the SDK gives models or mappings, by its version)
    return dict(annotation) if isinstance(annotation, dict) else dict(annotation.model_dump())


def _is_asked(pool: FramePool, query_id: str) -> bool:
    """Whether it is a question of this pool that can still be answered; a project may hold those of several."""
    return any(record.query_id == query_id for record in pool.frames(states=["queried", "held", "skipped", "labelled"]))
