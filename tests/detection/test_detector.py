"""The detectors: their published counts, their options, and the state that goes in and comes out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from spyolo.detection import (
    DETECTORS,
    REFERENCE_MASKS,
    DetectionLoss,
    Reading,
    SpikingYOLO,
    build_detector,
    detector_spec,
    firing_rates,
    postprocess,
)
from spyolo.neurons import BatchRenorm2d, LTCUnit, detach, leaves, map_state


def shell(name: str, **options: object) -> SpikingYOLO:
    """The detector without memory or arithmetic: all that its shapes can tell."""
    with torch.device("meta"):
        return build_detector(name, **options)


def one_step(detector: SpikingYOLO, *shape: int):
    return detector(torch.empty(shape, device="meta"))


def parameters(detector: torch.nn.Module) -> int:
    return sum(p.numel() for p in detector.parameters())


# The reference has 13,956,216 parameters, two of which are dead scalars.
@pytest.mark.parametrize("name, count", [("spyv4", 13_956_214), ("spyv4_lite", 5_957_014), ("yolov4_tiny", 5_918_006)])
def test_parameters_at_20_classes(name: str, count: int):
    assert parameters(shell(name, num_classes=20, readout="last")) == count


def test_the_leaky_readout_adds_one_number_a_logit():
    assert parameters(shell("spyv4_lite")) - parameters(shell("spyv4_lite", readout="last")) == 2 * 75


def test_other_gates():
    twin = parameters(shell("spyv4", readout="last")) - 8_030_240 - 6_208  # without gate convolutions and their norms
    assert parameters(shell("spyv4", gate="depthwise")) == twin + 31_040 + 6_208
    assert parameters(shell("spyv4", gate="pointwise")) == twin + 895_008 + 6_208
    assert parameters(shell("spyv4", gate="static")) == twin + 6_208 // 2


@pytest.mark.parametrize("name", ["spyv4", "spyv4_lite"])
def test_neurons_and_layers_at_416(name: str):
    _, state = one_step(shell(name), 1, 3, 416, 416)
    assert sum(cell.u.numel() for cell in state.cells.values()) == 6_186_752
    assert len(state.cells) == 19


@pytest.mark.parametrize("name, macs", [("spyv4", 8_590_586_368), ("spyv4_lite", 3_462_893_824), ("yolov4_tiny", 3_407_213_056)])
def test_multiplications_of_one_step_at_416(name: str, macs: int):
    detector = shell(name)
    with FlopCounterMode(display=False) as counter:
        one_step(detector, 1, 3, 416, 416)
    assert counter.get_total_flops() == 2 * macs


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("h, w", [(416, 416), (32, 32), (64, 160), (608, 352)])
def test_maps_at_strides_16_and_32(name: str, h: int, w: int):
    predictions, _ = one_step(shell(name, num_classes=20), 2, 3, h, w)
    assert [tuple(p.shape) for p in predictions] == [(2, 75, h // 16, w // 16), (2, 75, h // 32, w // 32)]


def test_feature_maps_are_26_and_13_at_416():
    _, state = one_step(shell("spyv4"), 1, 3, 416, 416)
    sides = {name: tuple(cell.u.shape[1:]) for name, cell in state.cells.items()}
    assert sides["backbone.conv1"] == (32, 208, 208)
    assert sides["backbone.block3.conv4"] == (256, 26, 26)
    assert sides["backbone.conv3"] == (512, 13, 13)
    assert sides["neck.up"] == (128, 26, 26)
    assert sides["neck.fine"] == (256, 26, 26)
    assert sides["neck.coarse"] == (512, 13, 13)


@pytest.mark.parametrize("h, w", [(100, 64), (64, 48)])
def test_other_sizes_are_refused(h: int, w: int):
    with pytest.raises(ValueError, match=f"multiples of 32, got {w} x {h}"):
        one_step(shell("spyv4_lite"), 1, 3, h, w)


def test_classes_width_depth_and_channels():
    one, twenty = shell("spyv4_lite", num_classes=1, readout="last"), shell("spyv4_lite", num_classes=20, readout="last")
    assert parameters(twenty) - parameters(one) == 19 * 3 * (256 + 1 + 512 + 1)
    narrow = shell("spyv4_lite", width=0.5)
    assert narrow.backbone.out_channels == (128, 256) and 3.5 < parameters(twenty) / parameters(narrow) < 4
    deep = shell("spyv4_lite", depth=3)
    _, state = one_step(deep, 1, 3, 64, 64)
    assert len(state.cells) == 19 + 3 * 2 and "backbone.block2.inner.2" in state.cells
    events, _ = one_step(shell("spyv4_lite", in_channels=2), 1, 2, 64, 64)
    assert events[0].shape == (1, 75, 4, 4)


@pytest.mark.parametrize("width", [0.1, 0.25, 0.375, 0.75, 1.25])
def test_any_width_builds(width: float):
    predictions, _ = one_step(shell("spyv4_lite", width=width), 1, 3, 64, 64)
    assert predictions[1].shape == (1, 75, 2, 2)


def test_unit_options_reach_every_cell():
    options = {"threshold": 0.5, "detach_reset": True, "start": "uniform", "surrogate": "arctan", "norm": "renorm"}
    detector = build_detector("spyv4_lite", width=0.25, **options)
    units = [m for m in detector.modules() if isinstance(m, LTCUnit)]
    assert len(units) == 19
    assert {(u.threshold, u.detach_reset, u.start, u.surrogate.__name__) for u in units} == {(0.5, True, "uniform", "arctan")}
    assert sum(isinstance(m, BatchRenorm2d) for m in detector.modules()) == 2 * 19


def test_lif_units_keep_their_time_constant():
    detector = build_detector("spyv4_lite", width=0.25, kind="lif")
    taus = [torch.sigmoid(p) for name, p in detector.named_parameters() if "gate" in name]
    assert len(taus) == 19 and all((t == 0.5).all() for t in taus)
    assert not any(p.requires_grad for name, p in detector.named_parameters() if "gate" in name)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"widht": 0.5}, r"unknown option widht; known: .*\bwidth\b"),
        ({"gate": "dense"}, r"conv, depthwise, pointwise, static.*got 'dense'"),
        ({"kind": "gru"}, r"ltc, lif or relu; got 'gru'"),
        ({"norm": "layer"}, r"batch.*renorm.*got 'layer'"),
        ({"start": "ones"}, r"zeros, uniform; got 'ones'"),
        ({"surrogate": "step"}, r"multi_gaussian, .*got 'step'"),
        ({"readout": "max"}, r"last, mean, leaky; got 'max'"),
        ({"masks": ((0, 1), (2,))}, r"same number of anchors"),
        ({"masks": ((0,), (1,), (2,))}, r"2 scales, got 3"),
        ({"masks": ((0,), (9,))}, r"more anchors than there are: 6"),
        ({"anchors": ((10, 14), (0, 5)), "masks": ((0,), (1,))}, r"positive sides"),
    ],
)
def test_bad_options_are_refused_with_the_known_ones(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_detector("spyv4_lite", **{"width": 0.25, **options})


def test_unknown_detectors_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown detector 'yolov9'; known: spyv4, spyv4_lite, yolov4_tiny"):
        build_detector("yolov9")


def test_a_spec_is_all_it_takes_to_build_again():
    spec = detector_spec("spyv4", num_classes=4, width=0.25, masks=REFERENCE_MASKS, gate="pointwise")
    first, second = SpikingYOLO(spec), SpikingYOLO(spec)
    second.load_state_dict(first.state_dict())
    assert first.spec == second.spec == spec
    assert not any("anchor" in name for name in first.state_dict())
    x = torch.rand(1, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(first.eval()(x)[0], second.eval()(x)[0]))


def test_reference_masks_share_the_fourth_anchor():
    fine, coarse = build_detector("spyv4", width=0.25, masks=REFERENCE_MASKS).anchors
    assert torch.equal(fine[2], coarse[0]) and torch.allclose(fine[2] * 416, torch.tensor([81.0, 82.0]))


def test_a_fresh_detector_sees_next_to_nothing():
    predictions, _ = build_detector("yolov4_tiny", width=0.25)(torch.rand(2, 3, 64, 64))
    objectness = torch.cat([torch.sigmoid(p.view(2, 3, 25, -1)[:, :, 4]).flatten() for p in predictions])
    assert objectness.mean().item() == pytest.approx(0.01, abs=0.005)


def test_the_small_detector_fires_in_every_layer(small):
    """The tests below would say nothing of a silent net."""
    detector = small()
    *_, (_, state) = detector.run(torch.rand(2, 3, 64, 64), 3)
    rates = firing_rates(state)
    assert len(rates) == 19 and min(rates.values()) > 0 and max(rates.values()) > 0.03


@pytest.mark.parametrize(
    "options", [{}, {"readout": "mean"}, {"readout": "last"}, {"start": "uniform"}, {"gate": "conv"}, {"kind": "lif"}], ids=str
)
def test_steps_at_once_equal_steps_with_carried_state(small, options: dict):
    detector, images = small(**options), torch.rand(2, 3, 64, 96)
    at_once = list(detector.run(images, 4))
    state = None
    for t in range(4):
        predictions, state = detector(images, state)  # encodes anew each time
        assert all(torch.equal(a, b) for a, b in zip(predictions, at_once[t][0], strict=True))
        state = map_state(Tensor.clone, detach(state))  # as if it had been stored in between
    assert not torch.equal(at_once[0][0][0], at_once[3][0][0])  # time does matter


def test_state_goes_with_its_picture(small):
    """Streams may be batched, split and reordered between two steps: row i of the state belongs to row i of the batch."""
    detector, images = small(), torch.rand(3, 3, 64, 64)
    _, state = detector(images)
    both, _ = detector(images, state)
    order = torch.tensor([2, 0])
    some = map_state(lambda v: v[order] if v.dim() else v, state)
    few, _ = detector(images[order], some)
    assert all(torch.allclose(a[order], b, atol=1e-5) for a, b in zip(both, few))


@pytest.mark.parametrize("name", DETECTORS)
def test_returned_state_is_never_overwritten(small, name: str):
    detector, state, kept = small(name), None, []
    for _ in range(3):
        predictions, state = detector(torch.rand(1, 3, 64, 64), state)
        kept.append(((predictions, state), map_state(Tensor.clone, (predictions, state))))
    for now, then in kept:
        assert all(torch.equal(a, b) for a, b in zip(leaves(now), leaves(then), strict=True))


def test_nothing_hides_between_two_pictures(small):
    detector, images = small(start="uniform"), torch.rand(2, 3, 64, 64)
    first, _ = detector(images)
    list(detector.run(torch.rand(4, 3, 64, 64), 3))
    again, _ = detector(images)
    assert all(torch.equal(a, b) for a, b in zip(first, again))


def test_the_twin_has_no_state_to_speak_of(small):
    detector, images = small("yolov4_tiny"), torch.rand(1, 3, 64, 64)
    (first, state), (second, _) = detector.run(images, 2)
    assert list(leaves(state)) == [] and firing_rates(state) == {} and not detector.spiking
    assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_uint8_pictures_are_scaled_to_one(small):
    detector = small()
    picture = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    assert torch.allclose(detector.encode(picture), detector.encode(picture.float() / 255), atol=1e-6)


def test_channels_last_is_the_same_detector_and_loss(small, truth):
    detector, images = small().double(), torch.rand(2, 3, 64, 96, dtype=torch.float64)
    loss, objects = DetectionLoss(), [truth((10, 10, 40, 30, 1)), truth()]
    answers = []
    for layout in (torch.contiguous_format, torch.channels_last):
        detector.to(memory_format=layout)
        predictions, _ = detector(images.contiguous(memory_format=layout))
        answers.append((*predictions, loss(detector, predictions, loss.assign(detector, objects, (64, 96))).total))
    assert answers[1][0].is_contiguous(memory_format=torch.channels_last)
    assert all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(*answers))


def test_bf16_autocast_keeps_logits_and_membranes_in_fp32(small, truth):
    detector, loss = small().train(), DetectionLoss()
    with torch.autocast("cpu", torch.bfloat16):
        predictions, state = detector(torch.rand(2, 3, 64, 64))
        predictions, state = detector(torch.rand(2, 3, 64, 64), state)
    assert {p.dtype for p in predictions} == {cell.u.dtype for cell in state.cells.values()} == {torch.float32}
    total = loss(detector, predictions, loss.assign(detector, [truth((10, 10, 40, 30, 1))] * 2, (64, 64))).total
    total.backward()
    grads = [p.grad for p in detector.parameters() if p.grad is not None]
    assert total.isfinite() and len(grads) == len(list(detector.parameters())) and all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("options", [{"readout": "mean"}, {"norm": "renorm"}, {"gate": "conv"}], ids=str)
def test_float64_end_to_end(small, truth, options: dict):
    detector, loss = small(**options).double().train(), DetectionLoss()
    *_, (predictions, state) = detector.run(torch.rand(1, 3, 64, 64, dtype=torch.float64), 2)
    assert {v.dtype for v in leaves((predictions, state.cells, [r.o for r in state.readouts if r]))} == {torch.float64}
    assert loss(detector, predictions, loss.assign(detector, [truth((10, 10, 40, 30, 1))], (64, 64))).total.dtype == torch.float64
    assert len(postprocess(predictions, detector.anchors, detector.strides, Reading(0.0))) == 1


@pytest.mark.parametrize("name", DETECTORS)
def test_every_weight_is_trained_within_two_steps(small, truth, name: str):
    """The readout's leak needs a step before: it weighs the old against the new."""
    detector, loss = small(name).train(), DetectionLoss()
    targets = loss.assign(detector, [truth((8, 8, 40, 40, 0), (30, 30, 60, 50, 2))] * 2, (64, 64))
    total = sum(loss(detector, p, targets).total for p, _ in detector.run(torch.rand(2, 3, 64, 64), 2))
    total.backward()
    # A bias in front of a batch norm has no effect and so next to no gradient: such are left out.
    without = [n for n, p in detector.named_parameters() if (p.grad is None or not p.grad.any()) and not n.endswith("conv.bias")]
    assert without == []
