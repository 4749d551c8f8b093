"""Settings of a training round and of the acquisition before it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ssada_core.learning.losses import MIN_KEPT_SHARE, OHEM_THRESHOLD
from ssada_core.settings import Settings


class AcquisitionSettings(Settings):
    """Which frames to ask for (METHOD §5)."""

    strategy: Literal["entropy", "confidence", "iou_score", "eis", "random"] = Field(
        "eis", description="Score by which frames are asked for."
    )
    diverse: bool = Field(True, description="Different scenes instead of the plain top-k.")
    audit_every: int = Field(4, ge=0, le=100, description="Every n-th frame asked is a random audit frame; 0: none.")
    top_share: float = Field(
        0.5, gt=0, le=1, description="Share of the frames, highest scores first, among which distance decides."
    )
    neighbour_ratio: float = Field(
        0.25, ge=0, le=1, description="Frames closer than this share of the median feature distance are neighbours."
    )


class MixingSettings(Settings):
    """Classes of source frames pasted onto target frames (METHOD §8); an option of SS-ADA and TUFL."""

    mode: Literal["none", "single", "dual_soft"] = Field(
        "none", description="single: source classes onto target frames; dual_soft: both ways, own label at 0.2."
    )
    weight: float = Field(1.0, ge=0, le=100, description="Weight of the mixed frames' loss beside the others.")
    threshold: float = Field(
        0.8, ge=0, le=1, description="Share of pixels this confident is the weight of pseudo-labels."
    )
    long_tail: bool = Field(False, description="Paste rare classes that the chosen half leaves out, too.")
    long_tail_probability: float = Field(0.3, ge=0, le=1, description="How often each rare class is pasted.")
    rare_share: float = Field(
        0.01, ge=0, le=1, description="Classes with a smaller share of the source's pixels are rare."
    )


class StyleSettings(Settings):
    """Source images in the target's style (METHOD §8); an option of SS-ADA and TUFL."""

    mode: Literal["none", "fda", "folder"] = Field(
        "none", description="fda: low-frequency amplitude of a target frame; folder: images translated beforehand."
    )
    beta: float = Field(0.01, ge=0, lt=0.5, description="Half-side of FDA's square as share of the shorter side.")
    folder: str = Field("", description="Translated source images, named as the source frames are.")

    @model_validator(mode="after")
    def _check(self) -> StyleSettings:
        if self.mode == "folder" and not self.folder:
            raise ValueError("style mode 'folder' needs folder: name one with the translated source images")
        return self


class TuflSettings(Settings):
    """TUFL, for when no human can label (METHOD §8); the defaults are the published setting."""

    iterations: int = Field(2000, ge=1, le=10_000_000, description="Optimisation steps.")
    learning_rate: float = Field(5e-6, gt=0, le=1, description="Base learning rate at the start.")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="Weight decay; none on biases and norms.")
    freeze_batch_norm: bool = Field(True, description="Keep batch norm's statistics as the training found them.")
    focal_weight: float = Field(0.08, ge=0, le=100, description="Lambda, weight of the unsupervised focal loss.")
    gamma: float = Field(2.0, ge=1, le=10, description="Exponent of the focal loss.")
    focal_type: int = Field(1, ge=1, le=2, description="Distance to 1 (type 1) or to the plain confidence (type 2).")
    ohem_ratio: float = Field(0.5, gt=0, le=1, description="Share of the confident pixels, hardest first.")
    threshold_mode: Literal["fixed", "adaptive"] = Field("fixed", description="One threshold, or one per class.")
    threshold: float = Field(0.8, ge=0, lt=1, description="Confidence threshold; the first one if adaptive.")
    adaptive_keep: float = Field(0.9, ge=0, le=1, description="Share of the old threshold kept at each step, a.")
    adaptive_share: float = Field(0.8, ge=0, le=1, description="Share of a class's pixels that may pass, b.")
    adaptive_power: float = Field(8.0, ge=0, le=100, description="Strictness below 1, d.")
    adaptive_cap: float = Field(0.999, gt=0, lt=1, description="Largest adaptive threshold.")


class BudgetSettings(Settings):
    """Labels revealed from disk while training goes on, as if a human gave them (METHOD §5)."""

    budget: float = Field(
        0.0,
        ge=0,
        description="Target frames whose label may be revealed: a share of them up to 1, or a number; 0 turns it off.",
    )
    initial_share: float = Field(
        0.01, ge=0, description="Labels revealed at the start: a share of the target frames up to 1, or a number."
    )
    schedule: tuple[float, ...] = Field(
        (0.1, 0.2, 0.3),
        description="Shares of the training after which equal parts of the rest are revealed; none: all at the start.",
    )

    @model_validator(mode="after")
    def _check(self) -> BudgetSettings:
        for name in ("budget", "initial_share"):
            value = getattr(self, name)
            if value > 1 and value != int(value):
                raise ValueError(f"{name} {value} is neither a share up to 1 nor a whole number of frames")
        if not all(0 < share < 1 for share in self.schedule) or list(self.schedule) != sorted(set(self.schedule)):
            raise ValueError(f"schedule {list(self.schedule)}: give rising shares between 0 and 1, such as 0.1, 0.2")
        return self


class TrainingSettings(Settings):
    """A training round: source, labelled target and unlabelled target together (METHOD §3, §4, §6)."""

    iterations: int = Field(300, ge=1, le=10_000_000, description="Optimisation steps.")
    source_batch: int = Field(2, ge=0, le=256, description="Source crops per step.")
    labelled_batch: int = Field(2, ge=0, le=256, description="Labelled target crops per step.")
    unlabelled_batch: int = Field(2, ge=0, le=256, description="Unlabelled target crops per step.")
    crop_height: int = Field(256, ge=32, le=4096, description="Height of a crop, pixels.")
    crop_width: int = Field(256, ge=32, le=4096, description="Width of a crop, pixels.")
    scale_min: float = Field(0.5, gt=0, le=10, description="Smallest random scale of a view.")
    scale_max: float = Field(2.0, gt=0, le=10, description="Largest random scale of a view.")

    learning_rate: float = Field(0.003, gt=0, le=1, description="Base learning rate, the backbone's.")
    head_multiplier: float = Field(10.0, gt=0, le=1000, description="Learning rate of all but the backbone, as factor.")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum.")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="Weight decay; none on biases and norms.")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="Share of the iterations with linear warm-up.")
    poly_power: float = Field(0.9, ge=0, le=10, description="Exponent of the decay after the warm-up.")
    freeze_batch_norm: bool = Field(True, description="Keep batch norm's statistics as the round found them.")

    trained_share: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Share of the trained weights in the result; the rest are those that the training began with, "
        "which forgets less.",
    )

    ohem_threshold: float = Field(OHEM_THRESHOLD, ge=0, le=1, description="Pixels above this probability are easy.")
    ohem_min_kept_share: float = Field(
        MIN_KEPT_SHARE, gt=0, le=1, description="Share of the batch's pixels that is always learned from."
    )
    class_weights: Literal["iou", "frequency", "none"] = Field(
        "none", description="Class weights of the supervised losses."
    )
    class_weight_upper: float = Field(2.0, ge=1, le=100, description="Largest class weight, u.")

    pseudo: Literal["student", "teacher"] = Field(
        "student", description="Who makes the pseudo-labels: the network itself, or its moving average."
    )
    teacher_decay: float = Field(0.999, ge=0, lt=1, description="Decay of the moving average after its warm-up.")
    threshold_mode: Literal["fixed", "class", "class_falling"] = Field(
        "fixed", description="Confidence test: fixed tau, r*IoU per class with r = 1, or with r falling from 1 to 0."
    )
    threshold: float = Field(0.0, ge=0, le=1, description="Tau of the fixed confidence test.")
    unlabelled_weight: float = Field(1.0, ge=0, le=100, description="Weight of the unlabelled loss beside the others.")
    unlabelled_start: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the iterations before which there is no such loss, where there are labels to learn from.",
    )
    unlabelled_ramp: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the iterations over which that weight rises from 0: labels correct the model before it "
        "learns from itself.",
    )
    sparse_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="Labelled frames with more than this share unlabelled are unlabelled frames there; below it the "
        "rest is taken for what belongs to no class.",
    )

    mixing: MixingSettings = Field(default_factory=MixingSettings)
    style: StyleSettings = Field(default_factory=StyleSettings)

    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic: bf16 mixed with fp32, or fp32; auto is bf16 on GPUs that have it, else fp32."
    )
    checkpoint_every: int = Field(50, ge=1, le=1_000_000, description="Iterations between checkpoints.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Everything random follows from it.")
    threads: int = Field(1, ge=1, le=256, description="CPU threads; set by the process that trains.")
    prefetch: bool = Field(True, description="Prepare the next batch in a background thread.")
    cache_megabytes: int = Field(256, ge=0, le=1_000_000, description="Memory for decoded frames.")

    @model_validator(mode="after")
    def _check(self) -> TrainingSettings:
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} is above scale_max {self.scale_max}: exchange them")
        if self.source_batch + self.labelled_batch + self.unlabelled_batch == 0:
            raise ValueError("all three batch sizes are 0: give at least one part of the step some crops")
        return self


class RoundTrainingSettings(TrainingSettings):
    """A short round that goes on from a trained model; what differs was chosen on docs/results/camvid_tune.md."""

    freeze_batch_norm: bool = Field(False, description="Keep batch norm's statistics as the round found them.")
    threshold: float = Field(0.9, ge=0, le=1, description="Tau of the fixed confidence test.")
    unlabelled_start: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Share of the iterations before which there is no such loss, where there are labels to learn from.",
    )
    class_weights: Literal["iou", "frequency", "none"] = Field(
        "iou", description="Class weights of the supervised losses."
    )
    trained_share: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Share of the trained weights in the result; the rest are those that the training began with, "
        "which forgets less.",
    )
