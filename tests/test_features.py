"""The backbone in other people's detectors: torchvision's four, a classifier, timm's names; state carried outside, or not at all."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import spyolo
from spyolo.checkpoint import WeightsInfo, load_detector, save_weights
from spyolo.cli.publish import FIGURES, KEPT, entry_of
from spyolo.detection import build_detector
from spyolo.errors import InputError
from spyolo.features import LAYERS, SpikingBackbone, carry_state, with_fpn
from spyolo.features import published as published_name
from spyolo.learning import FPTT
from spyolo.neurons import norms
from spyolo.published import Entry, read_manifest, write_manifest

NARROW = {"width": 0.1, "threshold": 0.3}
AS_IT_IS: dict[str, Any] = {"min_size": 64, "max_size": 64, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}


def body(*indices: int, **options: Any) -> SpikingBackbone:
    torch.manual_seed(0)
    return spyolo.backbone("spyv4_lite", indices or (2, 3, 4), **{"timesteps": 2} | NARROW | options)


@torch.no_grad()
def lively(made: SpikingBackbone) -> SpikingBackbone:
    """With norm statistics of our pictures, so that its neurons fire in evaluation too."""
    for m in norms(made):
        m.momentum = None
    for _ in range(3):
        made.train()(pictures())
    return made.eval()


def pictures(count: int = 2, height: int = 64, width: int = 64) -> Tensor:
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")


def truth(count: int = 2) -> list[dict[str, Tensor]]:
    return [{"boxes": torch.tensor([[8.0, 8, 40, 50]]), "labels": torch.tensor([1])} for _ in range(count)]


@pytest.mark.parametrize("name", ["spyv4", "spyv4_lite", "yolov4_tiny"])
@pytest.mark.parametrize("indices", [(0, 1, 2, 3, 4), (-1,), (1, 3)])
def test_shapes_are_what_out_channels_and_strides_say(name: str, indices: tuple[int, ...]):
    made = spyolo.backbone(name, indices, width=0.1, timesteps=2)
    maps = made(pictures(2, 64, 96))
    assert list(maps) == [str(i) for i in range(len(indices))]
    for m, channels, stride in zip(maps.values(), made.out_channels, made.strides):
        assert m.shape == (2, channels, 64 // stride, 96 // stride)
    assert made.strides == [LAYERS[i][1] for i in indices]


def test_timm_names():
    made = body(1, 4, features_only=True)
    maps = made(pictures())
    assert isinstance(maps, list)
    assert made.feature_info.channels() == [m.shape[1] for m in maps] == made.out_channels
    assert made.feature_info.reduction() == [4, 32] == made.strides
    assert made.feature_info.module_name() == ["block1.conv4", "conv3"]
    assert made.feature_info[1] == {"num_chs": made.out_channels[1], "reduction": 32, "module": "conv3", "index": 4}
    with pytest.raises(ValueError, match="features_only"):
        with_fpn(made)


def test_folds_are_mean_last_and_a_learned_leak():
    steps: dict[str, list[Tensor]] = {}
    for fold in ("last", "mean", "learned"):
        made = lively(body(4, fold=fold, timesteps=3))
        with torch.no_grad(), carry_state(made):
            steps[fold] = [made(pictures())["0"] for _ in range(3)]
        torch.testing.assert_close(made(pictures())["0"], steps[fold][-1])  # no context: all steps at once, from rest
    a, b, c = spikes = steps["last"]
    assert set(torch.cat(spikes).unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(steps["mean"], [a, (a + b) / 2, (a + b + c) / 3])
    torch.testing.assert_close(steps["learned"], [a, a + (b - a) / 2, a / 4 + b / 4 + c / 2])  # sigma(0) = 1/2
    learned = body(4, fold="learned")
    learned(pictures())["0"].sum().backward()
    assert learned.leaks is not None and learned.leaks[0].grad is not None


def test_nothing_is_kept_between_two_calls():
    made = lively(body())
    first = made(pictures())
    made(torch.rand(3, 3, 64, 64))
    torch.testing.assert_close(dict(made(pictures())), dict(first))
    assert not [k for k in made.state_dict() if "state" in k]


def test_same_maps_as_inside_the_detector():
    detector, made = build_detector("spyv4_lite", 3, **NARROW).eval(), lively(body(3, 4, fold="last", timesteps=1))
    detector.backbone.load_state_dict(made.body.state_dict())
    _, state = detector(pictures())
    maps = made(pictures())
    assert maps["1"].mean() > 0.02
    assert torch.equal(maps["0"], state.cells["backbone.block3.conv4"].s)
    assert torch.equal(maps["1"], state.cells["backbone.conv3"].s)


def test_layers_behind_the_last_map_neither_run_nor_train():
    made = body(0, 2)
    made(pictures())["1"].sum().backward()
    for name, p in made.named_parameters():
        behind = name.startswith(("body.block3", "body.conv3"))
        assert p.requires_grad != behind, name
        assert (p.grad is not None) != behind, name
    assert int(made.body.block3.conv1.synapse.norm.num_batches_tracked) == 0


def detectors() -> dict[str, Any]:
    anchors = AnchorGenerator(((8,), (16,), (32,)), ((1.0,),) * 3)

    def fcos() -> nn.Module:
        return FCOS(with_fpn(body(), 32), 3, anchor_generator=anchors, **AS_IT_IS)

    def retinanet() -> nn.Module:
        return RetinaNet(with_fpn(body(), 16), 3, anchor_generator=anchors, **AS_IT_IS)

    def faster_rcnn() -> nn.Module:
        pyramid = AnchorGenerator(((8,), (16,), (32,), (64,)), ((1.0,),) * 4)
        return FasterRCNN(with_fpn(body(), 16, LastLevelMaxPool()), 3, rpn_anchor_generator=pyramid, **AS_IT_IS)

    def ssd() -> nn.Module:
        sizes = {k: v for k, v in AS_IT_IS.items() if k.startswith("image")}
        return SSD(body(), DefaultBoxGenerator([[2], [2], [2]]), (64, 64), 3, **sizes)

    return {f.__name__: f for f in (fcos, retinanet, faster_rcnn, ssd)}


@pytest.mark.parametrize("name", detectors())
def test_drops_into_torchvision(name: str):
    detector = detectors()[name]()
    optimizer = torch.optim.Adam([p for p in detector.parameters() if p.requires_grad], 1e-3)
    loss = sum(detector(list(pictures()), truth()).values())  # BPTT: both steps inside one call
    loss.backward()
    first = next(p for m in detector.modules() if isinstance(m, SpikingBackbone) for p in m.parameters())
    assert first.grad is not None and first.grad.abs().sum() > 0
    rule = FPTT(optimizer)
    with carry_state(detector) as carried:  # FPTT: a step a call
        for _ in range(2):
            optimizer.zero_grad()
            sum(detector(list(pictures()), truth()).values()).backward()
            rule.step()
    assert carried.state is not None and carried.state.readouts[0].t == 2
    found = detector.eval()(list(pictures(1)))
    assert found[0].keys() >= {"boxes", "scores", "labels"}


def test_drops_into_a_classifier():
    made = body(-1)
    classifier = nn.Sequential(made, Pick("0"), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(made.out_channels[0], 5))
    loss = nn.functional.cross_entropy(classifier(pictures()), torch.tensor([0, 3]))
    loss.backward()
    assert made.body.conv1.synapse.conv.weight.grad.abs().sum() > 0


class Pick(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, maps: dict[str, Tensor]) -> Tensor:
        return maps[self.name]


def test_carried_state_is_detached_and_owned_by_the_context():
    made = body(4).train()
    with carry_state(made) as carried:
        made(pictures())["0"].sum().backward()
        before = carried.state
        assert not any(t.requires_grad for t in [before.readouts[0].o, *(c.u for c in before.cells.values())])
        made(pictures())["0"].sum().backward()  # would raise if it reached into the first step's freed graph
        with carry_state(made) as inner:  # another sequence meanwhile
            made(pictures(3))
        assert inner.state.readouts[0].t == 1 and carried.state.readouts[0].t == 2
        carried.state = before  # back to after the first step
        made(pictures())
        assert carried.state.readouts[0].t == 2
    made(pictures(1))  # outside nothing is carried
    assert carried.state.readouts[0].t == 2


def test_a_context_entered_again_begins_another_sequence():
    made = lively(body(4))
    carried = carry_state(made)
    with torch.no_grad(), carried:
        first = made(pictures())["0"]
        made(pictures())
    with torch.no_grad(), carried:
        assert torch.equal(made(pictures())["0"], first)
        made(pictures()), carried.state
    with torch.no_grad(), carried:
        made(pictures(1))  # of another size of batch


def test_several_steps_a_call():
    made = lively(body(4))
    with torch.no_grad(), carry_state(made, steps=3) as carried:
        maps = made(pictures())
    assert carried.state.readouts[0].t == 3
    made.timesteps = 3
    torch.testing.assert_close(maps["0"], made(pictures())["0"])


def test_a_changed_batch_shape_is_refused():
    made = body()
    with carry_state(made):
        made(pictures(2))
        with pytest.raises(ValueError, match=r"\[2 x 3 x 64 x 64\].*\[1 x 3 x 64 x 64\].*new carry_state"):
            made(pictures(1))
        with pytest.raises(ValueError, match="64 x 96"):
            made(pictures(2, 64, 96))
        made(pictures(2))
    with carry_state(made):
        made(pictures(1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "resnet"}, "known: spyv4, spyv4_lite, yolov4_tiny"),
        ({"out_indices": (3, 2)}, "rising numbers from 0 to 4"),
        ({"out_indices": (5,)}, "rising numbers"),
        ({"out_indices": ()}, "rising numbers"),
        ({"fold": "sum"}, "mean, last, learned"),
        ({"timesteps": -1}, "at least 1"),
        ({"timesteps": 0}, "at least 1"),
        ({"widht": 2}, "unknown option widht"),
    ],
)
def test_bad_arguments_are_told(given: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        spyolo.backbone(**given)


def test_carry_state_needs_one_backbone():
    with pytest.raises(ValueError, match="has 0"):
        carry_state(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="has 2"):
        carry_state(nn.Sequential(body(), body()))
    with pytest.raises(ValueError, match="at least 1"):
        carry_state(body(), steps=0)


def entry(path: Path, detector: nn.Module) -> Entry:
    """As `publish` writes it; its figures mean nothing."""
    info = WeightsInfo(detector.spec, ("a", "b", "c"), 64, 4)
    rows = [dict.fromkeys(FIGURES) | {"timesteps": t} for t in (4, 5)]
    metrics = {"protocol": dict.fromkeys(KEPT), "anytime": rows}
    return entry_of(Namespace(name=path.stem, dtype="fp32"), path, detector, info, rows[0], metrics, note="")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of published weights with one detector, `tiny`."""
    torch.manual_seed(1)
    detector = build_detector("spyv4_lite", 3, **NARROW)
    save_weights(tmp_path / "tiny.safetensors", detector, WeightsInfo(detector.spec, ("a", "b", "c"), 64, 4))
    write_manifest({"tiny": entry(tmp_path / "tiny.safetensors", detector)}, tmp_path)
    monkeypatch.setenv("SPYOLO_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("pretrained", ["tiny", True])
def test_pretrained_by_name(published: Path, pretrained: Any):
    made = spyolo.backbone("spyv4_lite", (4,), pretrained=pretrained)
    detector, _ = spyolo.load("tiny")
    assert made.timesteps == 4 and made.spec == detector.spec
    assert torch.equal(made.body.conv3.synapse.conv.weight, detector.backbone.conv3.synapse.conv.weight)


@pytest.mark.parametrize(("worse", "better"), [("a", "b"), ("b", "a")])
def test_true_takes_the_most_accurate_of_several(published: Path, worse: str, better: str):
    tiny = read_manifest()["tiny"]
    others = {name: replace(tiny, name=name, metrics={"voc10_ap50": ap}) for name, ap in ((worse, 0.1), (better, 0.2), ("none", None))}
    write_manifest(others, published)
    assert published_name("spyv4_lite") == better
    with pytest.raises(InputError, match="no published weights of spyv4; there are a, b, none"):
        published_name("spyv4")


def test_true_finds_what_this_repository_has_published():
    known = read_manifest()
    for name in {entry.config["name"] for entry in known.values()}:
        assert load_detector(published_name(name))[1].spec.name == name
    assert published_name("spyv4_lite") == "spyv4_lite_voc"


def test_pretrained_that_does_not_fit_is_told(published: Path):
    with pytest.raises(InputError, match=r"no published weights of that name; .*tiny"):
        spyolo.backbone(pretrained="tyni")
    with pytest.raises(InputError, match="weights of spyv4_lite, but the backbone asked for is spyv4"):
        spyolo.backbone("spyv4", pretrained="tiny")
    with pytest.raises(InputError, match="no published weights of yolov4_tiny; there are tiny"):
        spyolo.backbone("yolov4_tiny", pretrained=True)
    with pytest.raises(ValueError, match="timesteps must be at least 1, got 0"):
        spyolo.backbone(pretrained="tiny", timesteps=0)
    with pytest.raises(InputError, match=r"its width is 0\.1, not 0\.5; leave width out"):
        spyolo.backbone(pretrained="tiny", width=0.5)
    spyolo.backbone(pretrained="tiny", width=0.1)
    with open(published / "tiny.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="checksum"):
        spyolo.backbone(pretrained="tiny")
