"""From somebody else's checkpoint to our state dict, with an account of what matched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ssada_core.errors import ModelError
from ssada_core.networks.layouts import LAYOUTS, Layout
from ssada_core.networks.settings import IMAGENET_MEAN, IMAGENET_STD
from ssada_core.settings import nearest

_WRAPPERS = ("ema_model", "model", "state_dict", "model_state_dict")
"""Where checkpoints keep their weights, the averaged ones first."""
_PREFIXES = ("module.", "model.", "_orig_mod.")
_AUXILIARY = ("auxiliary8.", "auxiliary16.", "boosters.")
_COUNTER = ".num_batches_tracked"
_SHOWN = 3


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors out of a file.

    Attributes:
        tensors: without the prefixes that all names shared.
        wrapper: the key they were found under; empty if they lay at the top.
    """

    tensors: Mapping[str, Tensor]
    wrapper: str


@dataclass(frozen=True)
class ImportReport:
    """What became of a checkpoint's tensors. Batch norms' counters of batches are not counted.

    Attributes:
        layout: whose it is.
        wrapper: the key its weights were under.
        matched: our tensors that were filled.
        missing: ours that it lacks.
        unexpected: its own that we have no place for.
        wrong_shape: ours whose counterpart has another shape, with both.
        share: matched share of the tensors that the main prediction (or what the layout covers) needs.
        notes: what differs even where every tensor matches.
    """

    layout: str
    wrapper: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]
    share: float
    notes: tuple[str, ...]

    def words(self) -> list[str]:
        """Lines for people."""
        lines = [f"layout {self.layout}: {len(self.matched)} tensors matched, {100 * self.share:.1f} % of those needed"]
        for kind, names in (
            ("missing (random now)", self.missing),
            ("unexpected (not used)", self.unexpected),
            ("wrong shape (random now)", self.wrong_shape),
        ):
            if names:
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                lines.append(f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{more}")
        return [*lines, *(f"note: {note}" for note in self.notes)]


def unwrap(content: object, *, source: str) -> Checkpoint:
    """Find the state dict in what a checkpoint holds, and take off prefixes such as ``module.``.

    Raises:
        ModelError: if there is none.
    """
    wrapper = ""
    while isinstance(content, Mapping) and not _is_state_dict(content):
        key = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        wrapper, content = key, content[key]
    if not isinstance(content, Mapping) or not _is_state_dict(content):
        raise ModelError(f"{source} holds no state dict (names and tensors): import a checkpoint of weights")
    tensors = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    while prefix := next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in tensors)), ""):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return Checkpoint(tensors, wrapper)


def find_layout(checkpoint: Checkpoint, name: str = "") -> Layout:
    """The layout by its name, or recognised by the tensors' names.

    SS-ADA's and CoinCheung's newer V1 have the same names and differ in the images' normalisation; SS-ADA's lies
    under the key ``model`` beside its optimiser.

    Raises:
        ModelError: if there is no such layout, or none fits.
    """
    if name:
        names = [layout.name for layout in LAYOUTS]
        if name not in names:
            raise ModelError(f"no layout '{name}'{nearest(name, names)}")
        return LAYOUTS[names.index(name)]
    fitting = [layout for layout in LAYOUTS if all(mark in checkpoint.tensors for mark in layout.marks)]
    if not fitting:
        first = ", ".join(list(checkpoint.tensors)[:_SHOWN])
        known = ", ".join(layout.name for layout in LAYOUTS)
        raise ModelError(f"a checkpoint with tensors {first}, … is of no known layout (there are: {known})")
    saved_by_ss_ada = [layout for layout in fitting if layout.name == "ss_ada" and checkpoint.wrapper]
    return (saved_by_ss_ada or fitting)[0]


def number_of_classes(checkpoint: Checkpoint, layout: Layout) -> int | None:
    """Classes of the checkpoint's main head; None if it has no head."""
    for name, tensor in checkpoint.tensors.items():
        if layout.classifier and _our_name(name, layout) == layout.classifier:
            return int(tensor.shape[0])
    return None


def fill(
    expected: Mapping[str, Tensor], checkpoint: Checkpoint, layout: Layout
) -> tuple[dict[str, Tensor], ImportReport]:
    """Our state dict with everything of the checkpoint that fits.

    The images' normalisation is folded into the first convolutions: exact but for the pixels at the image's border,
    where convolutions pad with the other mean.

    Args:
        expected: a freshly built network's state; what is not matched stays as it is there.
        checkpoint: the tensors.
        layout: what they are called.
    """
    found = {ours: tensor for name, tensor in checkpoint.tensors.items() if (ours := _our_name(name, layout))}
    layout = _of_its_images(layout, number_of_classes(checkpoint, layout))
    for classifier in layout.without_bias:
        if f"{classifier}.weight" in found:
            found.setdefault(f"{classifier}.bias", torch.zeros(found[f"{classifier}.weight"].shape[0]))
    fitting = {n: t for n, t in found.items() if n in expected and t.shape == expected[n].shape}
    filled = {name: fitting.get(name, tensor).detach().to(tensor.dtype).clone() for name, tensor in expected.items()}
    if layout.absolute_scale:
        _take_magnitudes(filled, fitting)
    _fold_normalisation(filled, fitting, layout)
    return filled, _report(expected, found, fitting, checkpoint, layout)


def _is_state_dict(content: Mapping[object, object]) -> bool:
    return bool(content) and any(isinstance(value, Tensor) for value in content.values())


def _our_name(theirs: str, layout: Layout) -> str:
    module, _, leaf = theirs.rpartition(".")
    return f"{layout.modules[module]}.{leaf}" if module in layout.modules else ""


def _of_its_images(layout: Layout, classes: int | None) -> Layout:
    """The layout with mean and std of the images that a checkpoint of so many classes was trained on."""
    if not layout.images:
        return layout
    if classes is not None and classes in layout.images:
        mean, std = layout.images[classes]
        return replace(layout, mean=mean, std=std)
    found = f"with {classes} classes" if classes else "without a head"
    note = (
        f"{found} its images' mean and deviation are not known, {layout.mean} and {layout.std} were taken: evaluate "
        "it, and train a few iterations more if it lost"
    )
    return replace(layout, notes=(*layout.notes, note))


def _take_magnitudes(filled: dict[str, Tensor], fitting: Mapping[str, Tensor]) -> None:
    for name in fitting:
        module = name.removesuffix(".running_var")
        if module != name and f"{module}.weight" in fitting:
            filled[f"{module}.weight"] = filled[f"{module}.weight"].abs() + 1e-5


def _fold_normalisation(filled: dict[str, Tensor], fitting: Mapping[str, Tensor], layout: Layout) -> None:
    """With x' = a·x + b per colour: W·x' = (W·a)·x + ΣW·b, and the sum goes into the batch norm's mean."""
    if (layout.mean, layout.std) == (IMAGENET_MEAN, IMAGENET_STD):
        return
    std = torch.tensor(layout.std)
    scale = torch.tensor(IMAGENET_STD) / std
    shift = (torch.tensor(IMAGENET_MEAN) - torch.tensor(layout.mean)) / std
    for convolution, norm in layout.first:
        if f"{convolution}.weight" in fitting and f"{norm}.running_mean" in fitting:
            weight = filled[f"{convolution}.weight"]
            filled[f"{norm}.running_mean"] -= torch.einsum("ochw,c->o", weight, shift)
            filled[f"{convolution}.weight"] = weight * scale.view(1, 3, 1, 1)


def _report(
    expected: Mapping[str, Tensor],
    found: Mapping[str, Tensor],
    fitting: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    layout: Layout,
) -> ImportReport:
    ours = [name for name in expected if not name.endswith(_COUNTER)]
    needed = [n for n in ours if n.startswith(layout.covers) and not n.startswith(_AUXILIARY)]
    wrong = [name for name in ours if name in found and name not in fitting]
    unused = [n for n in checkpoint.tensors if _our_name(n, layout) not in expected and not n.endswith(_COUNTER)]
    return ImportReport(
        layout=layout.name,
        wrapper=checkpoint.wrapper,
        matched=tuple(name for name in ours if name in fitting),
        missing=tuple(name for name in ours if name not in found),
        unexpected=tuple(unused),
        wrong_shape=tuple(f"{n} (ours {tuple(expected[n].shape)}, its {tuple(found[n].shape)})" for n in wrong),
        share=sum(name in fitting for name in needed) / len(needed),
        notes=layout.notes,
    )
