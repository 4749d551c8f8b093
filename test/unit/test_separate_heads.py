"""Heads of their own for source and target over a shared trunk, where their label spaces differ (METHOD §2)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from adaptation_fixtures import TRAINING
from learning_fixtures import drive, tiny
from torch import nn

from ssada_core.data.samples import ArraySamples
from ssada_core.errors import ConfigError
from ssada_core.inference.load import read_model
from ssada_core.labels import CAMVID, load_label_space
from ssada_core.learning.batches import normalise
from ssada_core.learning.loaders import BatchMaker, TrainingData
from ssada_core.learning.losses import supervised_loss
from ssada_core.learning.offline import DataSettings, OfflineSettings, train
from ssada_core.learning.separate_heads import adopt, source_space
from ssada_core.learning.settings import MixingSettings, TrainingSettings
from ssada_core.learning.step import ssada_step
from ssada_core.networks.base import SegmentationNetwork
from ssada_core.networks.build import build_network
from ssada_core.networks.settings import NetworkSettings

SETTINGS = TrainingSettings(crop_height=64, crop_width=64)
COARSE = "{name: coarse, classes: [road, sky, rest], colors: [[1, 2, 3], [4, 5, 6], [7, 8, 9]], id_map: {IDS}}"


def coarse(folder: Path) -> str:
    """A label space of three classes in which CamVid's files can be read: road, sky, all else."""
    ids = {index: {"road": 0, "sky": 1}.get(name, 2) for index, name in enumerate(CAMVID.classes)}
    path = folder / "coarse.yaml"
    path.write_text(COARSE.replace("{IDS}", str(ids).replace("'", "")))
    return str(path)


@pytest.mark.parametrize(
    "settings",
    [NetworkSettings(), NetworkSettings(architecture="bisenet_v2")],
    ids=["v1", "v2"],
)
def test_the_first_images_go_to_the_source_heads_and_all_share_the_trunk(settings: NetworkSettings):
    torch.manual_seed(0)
    network = build_network(settings, 4, pretrained=False)
    network.add_source_heads(7)
    network.eval()
    x = torch.randn(5, 3, 64, 64)
    output = network.train_forward(x, perturb=slice(3, 4), auxiliary=slice(2, 3), source=2)
    assert output.logits.shape == (3, 4, 64, 64)
    assert [head.shape[:2] for head in output.auxiliary] == [(1, 4)] * (len(network.heads()) - 1)
    assert output.perturbed.shape == (1, 4, 64, 64)
    assert [head.shape for head in output.source] == [(2, 7, 64, 64)] * len(network.heads())
    torch.testing.assert_close(output.logits, network(x[2:]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.perturbed, network(x[3:4]), atol=1e-4, rtol=1e-4)  # no dropout in evaluation
    swapped = build_network(settings, 7, pretrained=False).eval()
    theirs = {name: value for name, value in network.state_dict().items() if name in swapped.state_dict()}
    trunk = {n: v for n, v in theirs.items() if v.shape == swapped.state_dict()[n].shape}
    swapped.load_state_dict({**swapped.state_dict(), **trunk})
    for mine, head in zip(swapped.heads(), network.source_heads, strict=True):
        mine.load_state_dict(head.state_dict())
    torch.testing.assert_close(output.source[0], swapped(x[:2]), atol=1e-4, rtol=1e-4)


def test_without_a_source_part_the_target_heads_answer_for_all():
    network = tiny()
    network.add_source_heads(5)
    output = network.train_forward(torch.randn(2, 3, 32, 32))
    assert output.logits.shape[:2] == (2, 3)
    assert output.source == ()


class SeparateTiny(type(tiny())):
    """The tiny network with heads for the source."""

    def train_forward(self, x, *, perturb=False, auxiliary=True, source=0):
        whole = super().train_forward(x, perturb=perturb, auxiliary=auxiliary)
        early = self.backbone(x[:source])
        main, helper = self.source_heads
        own = (self._up(main(self.middle(early)), x), self._up(helper(early), x)) if source else ()
        return type(whole)(whole.logits[source:], whole.auxiliary, whole.perturbed, own)


def separate_tiny() -> SeparateTiny:
    torch.manual_seed(0)
    network = SeparateTiny(3)
    network.add_source_heads(5)
    network.dropout.p = 0.0
    network.freeze_batch_norm()
    return network


def five_classes(samples: ArraySamples) -> ArraySamples:
    """Labels with ids 2, 3, 4, of which two are no classes of the target."""
    count = range(len(samples))
    return ArraySamples([samples.image(i) for i in count], [samples.label(i) + 2 for i in count])


def test_the_step_is_the_mean_of_both_domains_losses_by_their_own_heads():
    data = TrainingData(five_classes(drive(4, seed=1)), drive(4, seed=2), drive(4, seed=3))
    batch = BatchMaker(data, SETTINGS).batch(0)
    network = separate_tiny()
    weights = torch.tensor([1.0, 2.0, 3.0])
    result = ssada_step(network, batch, SETTINGS, class_weights=weights)
    source = network.train_forward(normalise(batch.source.images), auxiliary=slice(0, 0), source=2).source
    expected = supervised_loss(source, batch.source.labels)
    torch.testing.assert_close(result.figures["loss_source"], expected.detach())
    target = network.train_forward(normalise(batch.labelled.images))
    expected = supervised_loss((target.logits, *target.auxiliary), batch.labelled.labels, class_weights=weights)
    torch.testing.assert_close(result.figures["loss_target"], expected.detach())
    parts = [result.figures[f"loss_{name}"] for name in ("source", "target", "unlabelled")]
    torch.testing.assert_close(result.figures["loss"], torch.stack(parts).mean())


def test_each_domain_teaches_the_trunk_and_its_own_heads_only():
    data = TrainingData(five_classes(drive(4, seed=1)), drive(4, seed=2))
    batch = BatchMaker(data, SETTINGS).batch(0)
    for name, own, other in (("source", "source_heads", "head"), ("labelled", "head", "source_heads")):
        network = separate_tiny()
        kept = type(batch)(**{"source": None, "labelled": None, "unlabelled": None, name: getattr(batch, name)})
        ssada_step(network, kept, SETTINGS).loss.backward()
        moved = {key: value.grad is not None and bool(value.grad.any()) for key, value in network.named_parameters()}
        assert any(moved[key] for key in moved if key.startswith("backbone"))
        assert any(moved[key] for key in moved if key.startswith(own))
        assert not any(moved[key] for key in moved if key.startswith(other))


def last(head: nn.Module) -> nn.Conv2d:
    return [module for module in head.modules() if isinstance(module, nn.Conv2d)][-1]


def test_a_model_of_the_source_gives_trunk_heads_and_the_classes_of_the_same_name(tmp_path: Path):
    target = load_label_space(coarse(tmp_path))
    trained = network_of(CAMVID.num_classes, seed=1)
    network = network_of(target.num_classes, seed=2)
    before = last(network.head).weight[2].clone()
    network.add_source_heads(CAMVID.num_classes)
    adopt(network, trained, CAMVID, target)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        source = network.eval().train_forward(x, source=1).source[0]
        torch.testing.assert_close(source, trained.eval()(x))
        both = network(x)
    for row, name in enumerate(target.classes[:2]):
        torch.testing.assert_close(both[:, row], source[:, CAMVID.classes.index(name)])
    assert torch.equal(last(network.head).weight[2], before), "no class of the source is called 'rest'"


def network_of(classes: int, seed: int) -> SegmentationNetwork:
    torch.manual_seed(seed)
    return build_network(NetworkSettings(), classes, pretrained=False)


def offline(folder: Path, **changes: object) -> OfflineSettings:
    values = {
        "mode": "ssada",
        "out": str(folder / "run"),
        "label_space": coarse(folder),
        "source_label_space": "camvid",
        "network": NetworkSettings(input_height=64, input_width=96),
        "data": DataSettings(source="sim:day:3:0-4"),
        "training": TRAINING.model_copy(update={"iterations": 2, "source_batch": 1}),
    }
    return OfflineSettings(**{**values, **changes})


def write_target(folder: Path) -> str:
    """Frames of the drive by night in files, labelled with CamVid's ids."""
    import cv2

    from ssada_core.data.simulated_drive import SimulatedDrive

    for name in ("images", "labels"):
        (folder / "target" / name).mkdir(parents=True)
    for index in range(4):
        image, label = SimulatedDrive(seed=3, size=(64, 96)).frame(index, "night")
        cv2.imwrite(str(folder / "target" / "images" / f"{index}.png"), image)
        cv2.imwrite(str(folder / "target" / "labels" / f"{index}.png"), label)
    return str(folder / "target")


def test_the_exported_model_has_the_targets_heads(tmp_path: Path):
    source = OfflineSettings(
        out=str(tmp_path / "source"),
        network=NetworkSettings(input_height=64, input_width=96),
        data=DataSettings(source="sim:day:3:0-4"),
        training=TRAINING.model_copy(update={"iterations": 1, "source_batch": 1}),
    )
    train(source, command="test")
    frames = write_target(tmp_path)
    for mode, data in (
        ("ssada", {"unlabelled": frames, "budget": 0.5, "schedule": ()}),
        ("joint", {"labelled": frames}),
    ):
        settings = offline(
            tmp_path,
            mode=mode,
            out=str(tmp_path / mode),
            initial=str(tmp_path / "source" / "model"),
            data=DataSettings(source="sim:day:3:0-4", validation=frames, **data),
        )
        result, manifest = train(settings, command="test")
        assert {"loss_source", "loss_target"} <= set(result.losses)
        network, _ = read_model(tmp_path / mode / "model")
        assert network.num_classes == 3
        assert not [name for name in network.state_dict() if "source" in name]
        assert set(manifest.metrics["iou"]) == {"road", "sky", "rest"}


def test_label_spaces_that_agree_share_their_heads_and_others_must_be_possible(tmp_path: Path):
    settings = offline(tmp_path)
    target = load_label_space(settings.label_space)
    assert source_space(settings, target).name == "camvid"
    assert source_space(settings.model_copy(update={"source_label_space": ""}), target) is target
    assert source_space(settings.model_copy(update={"source_label_space": "camvid"}), CAMVID) is CAMVID
    with pytest.raises(ConfigError, match="mode joint and ssada, not tufl"):
        source_space(settings.model_copy(update={"mode": "tufl"}), target)
    mixed = settings.training.model_copy(update={"mixing": MixingSettings(mode="single")})
    with pytest.raises(ConfigError, match="set its mode to none"):
        source_space(settings.model_copy(update={"training": mixed}), target)
    with pytest.raises(ConfigError, match="add them first"):
        adopt(tiny(), tiny(), CAMVID, target)
    assert np.array_equal(sorted(target.id_map), range(11))
