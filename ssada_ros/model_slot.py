"""The engine in use, and the next one, prepared beside the frame path and exchanged between two frames."""

from __future__ import annotations

import ctypes
import os
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ssada_core.data.samples import Array
from ssada_core.errors import EngineError, ModelError, SsadaError, StoreError
from ssada_core.inference.engine import Engine, EngineSettings
from ssada_core.inference.load import load_engine
from ssada_core.labels import LabelSpace
from ssada_core.store.model_files import read_manifest
from ssada_core.store.models import resolve_model
from ssada_core.store.registry import CURRENT_FILE, ModelRegistry
from ssada_core.store.signature import verify_signature

PREPARE_NICE = 5
"""Nice value of the preparing thread. Not SCHED_IDLE: it shares the interpreter lock with the frame path,
and a thread that holds the lock must not starve."""


@dataclass(frozen=True)
class LoadedModel:
    """An engine with what is needed to publish its answers.

    Attributes:
        version: as in its manifest.
        engine: warm; whoever holds the model closes it.
        label_space: what the ids mean.
        palette: uint8 256×3 (BGR), the label space's colours for the overlay.
        created: ISO 8601.
    """

    version: str
    engine: Engine
    label_space: LabelSpace
    palette: Array
    created: str


def load_model(
    model_dir: Path, settings: EngineSettings, log: Callable[[str], None], trusted_key: str = ""
) -> LoadedModel:
    """Load a model directory; the engine is warm.

    Args:
        model_dir: the model.
        settings: of the engine.
        log: gets one line that says what runs.
        trusted_key: public key by which the model must be signed; empty asks for none.

    Raises:
        SsadaError: if the model or the backend cannot be used.
    """
    if trusted_key:
        verify_signature(model_dir, Path(trusted_key))
    manifest = read_manifest(model_dir)
    space = manifest.labels()
    engine = load_engine(model_dir, settings, log=log)
    return LoadedModel(manifest.version, engine, space, space.palette_bgr(), manifest.created)


def open_model(
    reference: str, settings: EngineSettings, log: Callable[[str], None], trusted_key: str = ""
) -> tuple[Path, LoadedModel, str]:
    """Load what a reference means; of a registry whose current version cannot be loaded, one that ran before it.

    Masks by an older model are worth more than none.

    Returns:
        The model's folder, the model, and why it is not the current one; "" where it is.

    Raises:
        SsadaError: if nothing can be loaded.
    """
    try:
        folder = resolve_model(reference)
        return folder, load_model(folder, settings, log, trusted_key), ""
    except (ModelError, EngineError, StoreError) as error:
        for version in ModelRegistry(reference).fallbacks() if Path(reference, CURRENT_FILE).is_file() else []:
            found = _try_version(Path(reference, version), settings, log, trusted_key)
            if found is not None:
                return Path(reference, version), found, f"{version} runs in place of the current model: {error}"
        raise


def _try_version(
    folder: Path, settings: EngineSettings, log: Callable[[str], None], trusted_key: str
) -> LoadedModel | None:
    try:
        return load_model(folder, settings, log, trusted_key)
    except (ModelError, EngineError) as error:
        log(str(error))
        return None


class ModelSlot:
    """Holds one model; :meth:`current` is called by the inference thread only, :meth:`request` by any.

    A preparation that fails leaves the running model untouched and is kept in :attr:`last_error`.
    """

    def __init__(
        self,
        first: LoadedModel,
        load: Callable[[str], LoadedModel],
        log_error: Callable[[str], None],
        trouble: str = "",
    ) -> None:
        self._model = first
        self._load = load
        self._log_error = log_error
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._wanted: str | None = None
        self._ready: LoadedModel | None = None
        self._retired: list[LoadedModel] = []
        self._closed = False
        self.last_error = trouble
        self._thread = threading.Thread(target=self._prepare, name="prepare-model", daemon=True)
        self._thread.start()

    @property
    def version(self) -> str:
        """Version of the model in use."""
        return self._model.version

    @property
    def model(self) -> LoadedModel:
        """The model in use, for reading only."""
        return self._model

    def request(self, version: str) -> None:
        """Ask for a version; the latest request wins."""
        with self._lock:
            self._wanted = version
        self._wake.set()

    def current(self) -> LoadedModel:
        """The model for the next frame: takes over a prepared one, if there is one."""
        if self._ready is not None:
            with self._lock:
                if self._ready is not None:
                    self._retired.append(self._model)
                    self._model, self._ready = self._ready, None
            self._wake.set()  # the old engine is closed beside the frame path
        return self._model

    def close(self) -> None:
        """Stop preparing and free every engine; the slot is of no use afterwards."""
        self._closed = True
        self._wake.set()
        self._thread.join()
        with self._lock:
            self._retire_ready()
            self._retired.append(self._model)
        self._close_retired()

    def _prepare(self) -> None:
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), PREPARE_NICE))
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            self._close_retired()
            with self._lock:
                wanted, self._wanted = self._wanted, None
            if wanted is not None and not self._closed:
                self._prepare_version(wanted)

    def _prepare_version(self, version: str) -> None:
        with self._lock:
            if version == self._model.version:  # also: back to it before the next one was taken over
                self._retire_ready()
                self.last_error = ""
                return
            if self._ready is not None and self._ready.version == version:
                return
        try:
            model = self._load(version)
        except Exception as error:  # noqa: BLE001 (whatever is wrong with a new model, the one in use stays)
            self._refuse(version, error)
            return
        with self._lock:
            if self._wanted is None:
                self._retire_ready()
                self._ready = model
            else:  # another one was asked for in the meantime
                self._retired.append(model)
        self.last_error = ""
        self._wake.set()

    def _refuse(self, version: str, error: Exception) -> None:
        expected = isinstance(error, (SsadaError, OSError))
        why = str(error) if expected else f"{type(error).__name__}: {error}"
        self.last_error = f"model {version} was not loaded, {self._model.version} stays: {why}"
        self._log_error(self.last_error if expected else f"{self.last_error}\n{traceback.format_exc().rstrip()}")

    def _retire_ready(self) -> None:
        if self._ready is not None:
            self._retired.append(self._ready)
            self._ready = None
            self._wake.set()

    def _close_retired(self) -> None:
        with self._lock:
            retired, self._retired = self._retired, []
        for model in retired:
            model.engine.close()
        if retired:
            _return_memory()


def _return_memory() -> None:
    """Give the system what the C library keeps of closed engines.

    Without it a process that swapped ONNX Runtime models 26 times grew from 378 to 771 MB (docs/results/inference.md).
    """
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
