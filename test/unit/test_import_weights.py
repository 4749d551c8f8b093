from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import checkpoint_fixtures as public
import numpy as np
import pytest
import torch
import yaml
from cli_fixtures import ssada_here

from ssada_core.errors import ConfigError, ModelError
from ssada_core.inference.load import read_model
from ssada_core.networks import foreign
from ssada_core.networks.build import build_network
from ssada_core.networks.layouts import LAYOUTS
from ssada_core.networks.settings import IMAGENET_MEAN, IMAGENET_STD, NetworkSettings
from ssada_core.store.import_weights import import_weights
from ssada_core.store.model_files import verify
from ssada_core.store.verified import open_verified

WHOLE = {
    "coincheung_v1": public.bisenet_v1(19),
    "coincheung_v2": public.bisenet_v2(19),
    "ss_ada": public.bisenet_v1(7),
    "tufl": public.bisenet_v1(13, in_place=True),
    "torchvision_resnet18": public.torchvision_resnet18(),
}


def save(path: Path, content: object) -> tuple[str, str]:
    torch.save(content, path)
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def spaced(folder: Path, classes: int) -> str:
    path = folder / f"space{classes}.yaml"
    colors = [[index, 0, 0] for index in range(classes)]
    path.write_text(yaml.safe_dump({"name": "own", "classes": [f"c{i}" for i in range(classes)], "colors": colors}))
    return str(path)


def filled(name: str, shapes: public.Shapes, *, plain: bool = False) -> tuple[torch.nn.Module, foreign.ImportReport]:
    """Our network with the layout's tensors; ``plain`` leaves the images' normalisation alone."""
    layout = next(layout for layout in LAYOUTS if layout.name == name)
    if plain:
        layout = dataclasses.replace(layout, mean=IMAGENET_MEAN, std=IMAGENET_STD, images={})
    checkpoint = foreign.Checkpoint(public.tensors(shapes), "")
    classes = foreign.number_of_classes(checkpoint, layout) or 4
    torch.manual_seed(0)
    network = build_network(NetworkSettings.model_validate(layout.network), classes, pretrained=False)
    state, report = foreign.fill(network.state_dict(), checkpoint, layout)
    network.load_state_dict(state)
    return network.eval(), report


@pytest.mark.parametrize("name", WHOLE)
def test_the_fixtures_are_the_public_definitions(name: str) -> None:
    assert public.digest(WHOLE[name]) == public.DIGESTS[name]


@pytest.mark.parametrize("name", ["coincheung_v1", "coincheung_v2", "ss_ada", "tufl"])
def test_public_checkpoints_load_completely(name: str) -> None:
    _, report = filled(name, WHOLE[name])
    assert (report.missing, report.unexpected, report.wrong_shape, report.share) == ((), (), (), 1.0)


@pytest.mark.parametrize("name", public.LOGITS)
def test_our_network_answers_as_the_authors(name: str) -> None:
    """Main and auxiliary logits against those of the public definition with the same tensors."""
    network, _ = filled(name, WHOLE[name], plain=True)
    with torch.no_grad():
        out = network.train_forward(public.image())
    assert public.pixels(out.logits) == pytest.approx(public.LOGITS[name], abs=0.01)
    assert len(out.auxiliary) == len(public.AUXILIARY_LOGITS[name])
    for ours, theirs in zip(out.auxiliary, public.AUXILIARY_LOGITS[name], strict=True):
        assert public.pixels(ours) == pytest.approx(theirs, abs=0.01)


# As in CoinCheung's lib/data; 20 classes are none of his data sets', and Cityscapes' are taken.
CITYSCAPES = ((0.3257, 0.3690, 0.3223), (0.2112, 0.2148, 0.2115))
COCO = ((0.46962251, 0.4464104, 0.40718787), (0.27469736, 0.27012361, 0.28515933))
ADE20K = ((0.49343230, 0.46819794, 0.43106043), (0.25680755, 0.25506608, 0.27422913))


@pytest.mark.parametrize(("classes", "images"), [(19, CITYSCAPES), (171, COCO), (150, ADE20K), (20, CITYSCAPES)])
@pytest.mark.parametrize("name", ["coincheung_v1", "coincheung_v2"])
def test_another_normalisation_of_the_images_is_folded_in(
    name: str, classes: int, images: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    shapes = (public.bisenet_v1 if name == "coincheung_v1" else public.bisenet_v2)(classes)
    folded, report = filled(name, shapes)
    guessed = ["with 20 classes its images' mean and deviation are not known"] if classes == 20 else []
    assert [note.partition(", ")[0] for note in report.notes] == guessed
    plain, _ = filled(name, shapes, plain=True)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
        return (image - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)

    layout = next(layout for layout in LAYOUTS if layout.name == name)
    assert len(layout.first) == 2
    with torch.no_grad():
        for convolution, norm in layout.first:
            ours, theirs = (
                net.get_submodule(norm)(net.get_submodule(convolution)(x))[..., 2:-2, 2:-2]
                for net, x in (
                    (folded, normalised(IMAGENET_MEAN, IMAGENET_STD)),
                    (plain, normalised(*images)),
                )
            )
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
            assert (theirs - ours).abs().max() < 1e-4 < theirs.abs().max()


def test_in_place_batch_norms_scale_is_its_magnitude() -> None:
    network, _ = filled("tufl", WHOLE["tufl"])
    theirs = public.tensors(WHOLE["tufl"])["sp.conv2.bn.weight"]
    torch.testing.assert_close(network.get_submodule("spatial_path.1.1").weight.data, theirs.abs() + 1e-5)
    assert not torch.any(network.get_submodule("head.1").bias)


def test_the_old_gate_and_a_checkpoint_without_auxiliary_heads() -> None:
    _, old = filled("coincheung_v1_old", public.bisenet_v1(19, old_gate=True))
    assert (old.missing, old.unexpected, old.share) == ((), (), 1.0)
    _, report = filled("coincheung_v1", public.bisenet_v1(19, auxiliary=False))
    assert report.share == 1.0
    assert {name.partition(".")[0] for name in report.missing} == {"auxiliary8", "auxiliary16"}
    assert any("14 missing" in line for line in report.words())


def test_resnet18_fills_the_backbone_alone(tmp_path: Path) -> None:
    source, sha256 = save(tmp_path / "resnet18.pth", public.tensors(WHOLE["torchvision_resnet18"]))
    report = import_weights(source, sha256, tmp_path / "out", label_space="camvid")
    assert (report.layout, report.share) == ("torchvision_resnet18", 1.0)
    assert report.unexpected == ("fc.weight", "fc.bias")
    network, manifest = read_model(tmp_path / "out")
    theirs = public.tensors(WHOLE["torchvision_resnet18"])
    backbone = network.get_submodule("context_path.backbone")
    torch.testing.assert_close(backbone.get_submodule("layer3.0.downsample.1").weight, _parameter(theirs))
    assert manifest.labels().name == "camvid"
    assert "head.1.weight" in manifest.training["random"]
    with pytest.raises(ConfigError, match=r"no head.*--label-space"):
        import_weights(source, sha256, tmp_path / "other")


def _parameter(tensors: dict[str, torch.Tensor]) -> torch.nn.Parameter:
    return torch.nn.Parameter(tensors["layer3.0.downsample.1.weight"])


def test_ss_adas_checkpoint_becomes_a_model(tmp_path: Path) -> None:
    weights = {f"module.{name}": tensor for name, tensor in public.tensors(WHOLE["ss_ada"]).items()}
    content = {"model": weights, "optimizer": {"state": {}}, "epoch": 3, "previous_best": np.float64(71.6)}
    source, sha256 = save(tmp_path / "best.pth", content)
    report = import_weights(source, sha256.upper(), tmp_path / "out", label_space=spaced(tmp_path, 7), size=(64, 96))
    assert (report.layout, report.wrapper, report.share) == ("ss_ada", "model", 1.0)
    manifest = verify(tmp_path / "out")
    assert manifest.training["source_sha256"] == sha256
    assert (manifest.network.input_height, manifest.network.input_width) == (64, 96)
    network, _ = read_model(tmp_path / "out")
    with torch.no_grad():
        assert public.pixels(network(public.image())) == pytest.approx(public.LOGITS["ss_ada"], abs=0.01)
    with pytest.raises(ModelError, match="already holds a model"):
        import_weights(source, sha256, tmp_path / "out", label_space="camvid")


def test_wrappers_and_prefixes_are_taken_off() -> None:
    tensor = torch.zeros(2)
    found = foreign.unwrap({"state_dict": {"module.model.a.weight": tensor}, "epoch": 1}, source="x")
    assert (list(found.tensors), found.wrapper) == (["a.weight"], "state_dict")
    both = {"model": {"a": tensor}, "ema_model": {"module.a": tensor + 1}}
    assert foreign.unwrap(both, source="x").tensors["a"].tolist() == [1, 1]
    assert list(foreign.unwrap({"module.a": tensor, "b": tensor}, source="x").tensors) == ["module.a", "b"]
    for nothing in ({"epoch": 3}, [tensor], {}, {"model": {}}, None):
        with pytest.raises(ModelError, match="holds no state dict"):
            foreign.unwrap(nothing, source="x")


def test_other_classes_keep_all_but_the_classifiers(tmp_path: Path) -> None:
    source, sha256 = save(tmp_path / "v1.pth", public.tensors(WHOLE["coincheung_v1"]))
    report = import_weights(source, sha256, tmp_path / "out", label_space="camvid")
    assert report.wrong_shape[0] == "head.1.weight (ours (11, 256, 1, 1), its (19, 256, 1, 1))"
    assert len(report.wrong_shape) == 6
    assert 0.95 < report.share < 1


def test_too_little_that_matches_is_refused(tmp_path: Path) -> None:
    tensors = public.tensors(WHOLE["coincheung_v1"])
    some = {name: tensor for name, tensor in tensors.items() if not name.startswith("sp.")}
    source, sha256 = save(tmp_path / "v1.pth", some)
    with pytest.raises(ModelError, match=r"only 8\d\.\d % of the tensors needed match \(20 missing"):
        import_weights(source, sha256, tmp_path / "out", label_space=spaced(tmp_path, 19))
    assert not (tmp_path / "out").exists()
    report = import_weights(source, sha256, tmp_path / "out", label_space=spaced(tmp_path, 19), min_share=0.5)
    assert len(report.missing) == 20
    with pytest.raises(ModelError, match=r"only 0\.0 %"):
        import_weights(source, sha256, tmp_path / "v2", label_space="camvid", layout="coincheung_v2")
    with pytest.raises(ModelError, match=r"no layout 'coincheung'.*did you mean 'coincheung_v"):
        import_weights(source, sha256, tmp_path / "v2", label_space="camvid", layout="coincheung")


def test_an_unknown_network_is_named_so(tmp_path: Path) -> None:
    source, sha256 = save(tmp_path / "unet.pth", {"encoder.weight": torch.zeros(3)})
    with pytest.raises(ModelError, match=r"encoder\.weight.*of no known layout.*coincheung_v2"):
        import_weights(source, sha256, tmp_path / "out", label_space="camvid")


class Harmful:
    """A pickle that would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    source, sha256 = save(tmp_path / "bad.pth", {"model": {"a": torch.zeros(2)}, "x": Harmful(tmp_path / "harm")})
    with pytest.raises(ModelError, match="no checkpoint that can be read safely"):
        import_weights(source, sha256, tmp_path / "out", label_space="camvid")
    assert not (tmp_path / "harm").exists()
    for content in (b"", b"not a checkpoint", b"PK\x03\x04" + bytes(40)):
        (tmp_path / "junk.pth").write_bytes(content)
        with pytest.raises(ModelError, match="no checkpoint that can be read safely"):
            import_weights(
                str(tmp_path / "junk.pth"), hashlib.sha256(content).hexdigest(), tmp_path / "out", label_space="camvid"
            )


def test_the_hash_is_checked_before_anything_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "junk.pth"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError, match=rf"has SHA-256 {hashlib.sha256(b'not a checkpoint').hexdigest()}, not 0000"):
        import_weights(str(path), "0" * 64, tmp_path / "out", label_space="camvid")
    with pytest.raises(ModelError, match="is no SHA-256"):
        import_weights(str(path), "abc", tmp_path / "out", label_space="camvid")
    with pytest.raises(ModelError, match="there is no such file"):
        import_weights(str(tmp_path / "none.pth"), "0" * 64, tmp_path / "out", label_space="camvid")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/elsewhere":
                self.send_response(302)
                self.send_header("Location", "http://192.0.2.1/file.pth")
                BaseHTTPRequestHandler.end_headers(self)
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_a_url_is_downloaded_verified_and_bounded(server: str, tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    sha256 = hashlib.sha256(content).hexdigest()
    (tmp_path / "served/file.pth").write_bytes(content)
    with open_verified(f"{server}/file.pth", sha256) as file:
        assert file.read() == content
    with (
        pytest.raises(ModelError, match="larger than 2 MiB"),
        open_verified(f"{server}/file.pth", sha256, max_bytes=2 << 20),
    ):
        pass
    with pytest.raises(ModelError, match="not 0000"), open_verified(f"{server}/file.pth", "0" * 64):
        pass
    with pytest.raises(ModelError, match=r"cannot be downloaded.*404"), open_verified(f"{server}/none", sha256):
        pass


@pytest.mark.parametrize("url", ["http://example.org/a.pth", "ftp://127.0.0.1/a.pth", "file:///etc/passwd"])
def test_only_https_is_downloaded(url: str) -> None:
    with pytest.raises(ModelError, match="only https is downloaded"), open_verified(url, "0" * 64):
        pass


def test_a_redirect_does_not_lead_out_of_https(server: str) -> None:
    with pytest.raises(ModelError, match=r"192\.0\.2\.1.*only https"), open_verified(f"{server}/elsewhere", "0" * 64):
        pass


def test_the_commands(server: str, tmp_path: Path) -> None:
    _, sha256 = save(tmp_path / "served/v2.pth", {"state_dict": public.tensors(public.bisenet_v2(11))})
    model = tmp_path / "model"
    found = ssada(
        *("models", "import", f"{server}/v2.pth", "--sha256", sha256, "--out", str(model)),
        *("--label-space", "camvid", "--height", "64", "--width", "96"),
    )
    assert found["layout"] == "coincheung_v2"
    assert found["share"] == 1.0
    info = ssada("models", "info", str(model))
    assert info["network"]["architecture"] == "bisenet_v2"
    assert info["parameters"] == sum(p.numel() for p in read_model(model)[0].parameters())
    assert 0.4e9 < info["flops"] < 0.9e9


def ssada(*arguments: str) -> dict[str, object]:
    done = ssada_here(*arguments)
    assert done.status == 0, done.err
    return dict(json.loads(done.out))
