"""What can go wrong, as types.

Every message is one line that names the offending value and the remedy, so that a command line or a
node can print ``str(error)`` as it is.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class SsadaError(Exception):
    """Base of every error that a user can cause or mend."""


class ConfigError(SsadaError):
    """A setting that does not exist or does not fit."""


class DataError(SsadaError):
    """An image, label, list or data set that cannot be used."""


class EncodingError(DataError):
    """Image bytes that do not match their declared encoding, or an encoding that is not known."""


class BagError(DataError):
    """A recording that cannot be read or written."""


class PrivacyError(DataError):
    """A frame in which faces and plates could not be looked for, and which therefore must not be kept."""


class LabelError(DataError):
    """A label that is refused (size, dtype, class ids, nothing labelled)."""


class ModelError(SsadaError):
    """Weights, networks or model versions that are missing or do not fit."""


class EngineError(SsadaError):
    """An inference backend that is unavailable or failed."""


class BackendError(EngineError):
    """An inference backend that failed at its work, whatever the frame: memory that ran out, a device that is gone."""


class StoreError(SsadaError):
    """The frame pool or the model registry cannot do what was asked."""


class WorkerError(SsadaError):
    """A training round that could not be started or finished."""


class MissingExtraError(SsadaError):
    """An optional dependency that is needed now and is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed: pip install 'ssada_ros[{extra}]'"
        )
        self.package = package
        self.extra = extra


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency at the moment it is needed.

    Args:
        module: dotted name, such as ``"openvino"``.
        extra: the extra of this package that installs it.
        purpose: what needs it, as the beginning of the error's sentence.

    Raises:
        MissingExtraError: if the module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(module.partition(".")[0], extra, purpose) from error
