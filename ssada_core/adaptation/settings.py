"""Settings of the adaptation as a whole: each room's own, and where everything lies."""

from __future__ import annotations

from pydantic import Field

from ssada_core.adaptation.cycle import CycleSettings
from ssada_core.adaptation.drift import DriftSettings
from ssada_core.adaptation.flags import FlagSettings
from ssada_core.adaptation.gate_settings import GateSettings
from ssada_core.adaptation.shadow import ShadowSettings
from ssada_core.adaptation.watch import WatchSettings
from ssada_core.adaptation.worker_process import HUNG_AFTER_S
from ssada_core.annotation.check import LabelCheckSettings
from ssada_core.annotation.serve import AnnotateJob
from ssada_core.annotation.settings import AnnotateSettings
from ssada_core.inference.engine import EngineSettings
from ssada_core.labels import LabelSpace
from ssada_core.learning.settings import AcquisitionSettings, RoundTrainingSettings
from ssada_core.settings import Settings
from ssada_core.store.pool import PoolSettings
from ssada_core.store.registry import RegistrySettings


class ScoringEngineSettings(EngineSettings):
    """The adaptation's own engine scores one frame now and then: it leaves the other cores to the masks."""

    threads: int = Field(1, ge=0, le=256, description="CPU threads for scoring frames; 0 leaves it to the backend.")


class AdaptationSettings(Settings):
    """What the adaptation needs, without ROS."""

    registry_dir: str = Field("ssada/registry", description="Folder of the model registry.")
    pool_dir: str = Field("ssada/pool", description="Folder of the frame pool.")
    rounds_dir: str = Field("ssada/rounds", description="Folder of the training rounds.")
    source_pack: str = Field("", description="Source pack, replayed in every batch; empty makes rounds source-free.")
    queries_dir: str = Field("", description="Folder into which queries are written for annotators; empty for none.")
    labels_dir: str = Field("", description="Folder from which labels (<query id>.png) are taken; empty for none.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of the choice of queries.")
    worker_restarts: int = Field(3, ge=0, le=100, description="Times a killed training worker is started again.")
    worker_hung_after_s: float = Field(
        HUNG_AFTER_S, ge=0, description="Seconds without progress after which a worker is killed and resumed; 0 never."
    )
    low_priority: bool = Field(True, description="Train under SCHED_IDLE, so that training never costs a mask.")
    pool: PoolSettings = Field(default_factory=PoolSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    cycle: CycleSettings = Field(default_factory=CycleSettings)
    acquisition: AcquisitionSettings = Field(default_factory=AcquisitionSettings)
    training: RoundTrainingSettings = Field(default_factory=RoundTrainingSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    drift: DriftSettings = Field(default_factory=DriftSettings)
    watch: WatchSettings = Field(default_factory=WatchSettings)
    shadow: ShadowSettings = Field(default_factory=ShadowSettings)
    flags: FlagSettings = Field(default_factory=FlagSettings)
    label_check: LabelCheckSettings = Field(default_factory=LabelCheckSettings)
    annotate: AnnotateSettings = Field(default_factory=AnnotateSettings)
    engine: ScoringEngineSettings = Field(default_factory=ScoringEngineSettings)

    def page_job(self, label_space: LabelSpace) -> AnnotateJob:
        """What the annotation page serves: this pool, by these settings."""
        return AnnotateJob(
            pool_dir=self.pool_dir,
            label_space=label_space.to_dict(),
            pool=self.pool,
            annotate=self.annotate,
            label_check=self.label_check,
            budget=self.cycle.budget,
            registry_dir=self.registry_dir,
        )

    def judgeable_cycle(self) -> CycleSettings:
        """The cycle's settings with the audit labels that the gate's policy needs at the least."""
        given = self.cycle.min_audit_labels
        needed = self.gate.rules().min_audit_frames if given < 0 else given
        return self.cycle.model_copy(update={"min_audit_labels": needed})
