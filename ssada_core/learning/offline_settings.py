"""The training configuration, ``config/train/*.yaml``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ssada_core.learning.settings import AcquisitionSettings, BudgetSettings, TrainingSettings, TuflSettings
from ssada_core.networks.settings import NetworkSettings
from ssada_core.settings import Settings

Mode = Literal["source", "supervised", "joint", "ssada", "tufl"]

PARTS: dict[Mode, frozenset[str]] = {
    "source": frozenset({"source"}),
    "supervised": frozenset({"labelled"}),
    "joint": frozenset({"source", "labelled"}),
    "ssada": frozenset({"source", "labelled", "unlabelled"}),
    "tufl": frozenset({"source", "unlabelled"}),
}
"""Which data each mode trains on; ``ssada`` without a source is source-free, as in an online round."""


class DataSettings(BudgetSettings):
    """What to train on: references as :func:`ssada_core.data.lists.open_samples` takes them; which labels when."""

    source: str = Field("", description="Labelled source frames.")
    labelled: str = Field("", description="Labelled target frames.")
    unlabelled: str = Field("", description="Unlabelled target frames; labels they have are not read.")
    validation: str = Field("", description="Labelled frames that judge the result and are never trained on.")


class OfflineSettings(Settings):
    """A training configuration, ``config/train/*.yaml``."""

    name: str = Field("model", description="Version name of the result.")
    mode: Mode = Field("source", description="source, supervised, joint, ssada or tufl.")
    out: str = Field("runs/model", description="Folder of the run; the model is in its subfolder model/.")
    label_space: str = Field("camvid", description="A built-in label space or a YAML file.")
    source_label_space: str = Field(
        "", description="The source's, where it has other classes: it then has heads of its own; empty: label_space."
    )
    initial: str = Field("", description="Model to start from; empty starts from ImageNet weights.")
    half: bool = Field(True, description="Store convolution weights as float16.")
    note: str = Field("", description="Kept in the manifest: licence of the data, purpose.")
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    data: DataSettings = Field(default_factory=DataSettings)
    training: TrainingSettings = Field(default_factory=TrainingSettings)
    tufl: TuflSettings = Field(default_factory=TuflSettings)
    acquisition: AcquisitionSettings = Field(default_factory=lambda: AcquisitionSettings(audit_every=0))
    tensorboard: bool = Field(
        False, description="Write curves to the run's subfolder tensorboard/ (extra 'tensorboard')."
    )

    def effective_training(self) -> TrainingSettings:
        """What the mode trains by: only its own parts; TUFL has its own length, learning rate, decay and batch norm."""
        training = only_parts(self.training, PARTS[self.mode])
        if self.mode != "tufl":
            return training
        own = ("iterations", "learning_rate", "weight_decay", "freeze_batch_norm")
        return training.model_copy(update={name: getattr(self.tufl, name) for name in own})


def only_parts(training: TrainingSettings, parts: frozenset[str]) -> TrainingSettings:
    """``training`` with a batch of 0 for every other part.

    Partly labelled frames would else have an unlabelled loss (METHOD §7) in a training that is to be supervised.
    """
    others = {"source", "labelled", "unlabelled"} - parts
    return training.model_copy(update={f"{part}_batch": 0 for part in others})
