"""What is not finite is found, named and left out; layers that never or always fire are told."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from spyolo import health
from spyolo.checkpoint import WeightsInfo, load_detector, load_tensors, save_weights
from spyolo.detection import LossParts, SpikingYOLO, build_detector
from spyolo.errors import InputError
from spyolo.health import NotFinite, Watch, check_state, told
from spyolo.predictor import Predictor
from spyolo.trainer import Trainer

SHORT = {"limit": 12, "val_limit": 2, "recalibrate": 0, "eval_every": 9, "epochs": 1, "batch": 2, "augment": "eval"}  # 6 batches


pytestmark = pytest.mark.usefixtures("unadorned")


class Poison(torch.autograd.Function):
    """The identity; its gradient is NaN."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad * math.nan


def at_batch(trainer: Trainer, count: int, action) -> Trainer:
    """Call `action` before batch `count` of the run (from 1)."""
    inner, seen = trainer.set_rates, iter(range(1, 10**6))

    def set_rates() -> None:
        if next(seen) == count:
            action()
        inner()

    trainer.set_rates = set_rates  # type: ignore[method-assign]
    return trainer


def ids_of(trainer: Trainer, batch: int) -> list[str]:
    return list(trainer.batches())[batch - 1].ids


# --- while training ---


def nan_in(detector: SpikingYOLO, name: str) -> None:
    with torch.no_grad():
        weight = dict(detector.named_parameters())[name]
        weight[(0,) * weight.dim()] = math.nan


def test_a_layer_that_is_nan_is_found_although_the_loss_is_finite(tiny_config):
    """Its neurons fall silent, the heads' logits stay finite."""
    config = tiny_config(**SHORT, save_seconds=0)
    trainer = Trainer(config, quiet=True)
    names = ids_of(trainer, 3)
    at_batch(trainer, 3, lambda: nan_in(trainer.detector, "backbone.block2.conv1.synapse.norm.weight"))
    with pytest.raises(InputError) as caught:
        trainer.fit()
    message = str(caught.value)
    assert f"epoch 1, batch 3 ({names[0]}.jpg, {names[1]}.jpg): " in message
    assert "\n" not in message
    assert "the gradient of backbone.block2.conv1.unit.gate.norm.bias is not finite (the loss still is)" in message  # where it began
    assert f"the last good checkpoint is {trainer.folder.last}" in message
    tensors, _ = load_tensors(trainer.folder.last)
    assert all(t.isfinite().all() for t in tensors.values())


def test_a_membrane_that_is_nan_is_found_although_loss_and_gradients_are_finite(weights_file):
    """As behind a surrogate of bounded reach, which gives such a neuron no gradient."""
    detector, _ = load_detector(weights_file)
    watch = Watch(detector, list(detector.parameters()))
    state = detector(torch.zeros(1, 3, 64, 64))[1]
    names = list(state.cells)
    for bad in (state, spoilt(spoilt(state, names[5]), names[9])):
        watch.start()
        assert watch.fine(torch.ones(()), [bad], last=True)
    watch.start()
    assert watch.fine(torch.ones(()), [state], last=True)
    assert watch.check() == (1, f"the state of {names[5]} is not finite (the loss still is)")
    assert watch.check() is None  # told once


def test_it_is_looked_for_every_so_many_batches_and_the_right_one_is_named(tiny_config):
    trainer = Trainer(tiny_config(**SHORT, check_every=6, save_seconds=1e9), quiet=True)
    names = ids_of(trainer, 2)
    looks = []
    inner = trainer.watch.check
    trainer.watch.check = lambda: looks.append(trainer.batch) or inner()  # type: ignore[method-assign]
    at_batch(trainer, 2, lambda: nan_in(trainer.detector, "backbone.conv1.synapse.conv.weight"))
    with pytest.raises(InputError, match=rf"batch 2 \({names[0]}.jpg, {names[1]}.jpg\): the .* backbone.conv1.* .*; there is no che"):
        trainer.fit()
    assert looks == [6]


def test_a_gradient_that_is_not_finite_is_named_by_the_layer_where_it_began(tiny_config):
    trainer = Trainer(tiny_config(**SHORT), quiet=True)
    hook = trainer.detector.neck.register_forward_pre_hook

    def spoil() -> None:
        hook(lambda module, args: (Poison.apply(args[0]), *args[1:]))

    at_batch(trainer, 2, spoil)
    with pytest.raises(InputError, match=r"batch 2 .*: the gradient of backbone\.block3\.conv4\.\S+ is not finite \(the loss still is\)"):
        trainer.fit()


def test_weights_that_an_update_broke_are_not_saved(tiny_config):
    """Finite loss and gradients, and a rate that carries the weights away: seen before the checkpoint."""
    config = tiny_config(**SHORT | {"limit": 2}, rule="bptt", optimizer="sgd", clip=0)
    trainer = Trainer(config, quiet=True)
    trainer.set_rates = lambda: [g.__setitem__("lr", 1e38) for g in trainer.optimizer.param_groups]  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"batch 1 .*: the weight \S+ is not finite"):
        trainer.fit()
    assert not trainer.folder.last.exists()


def broken_at(trainer: Trainer, batches: set[int]) -> None:
    """The loss of these batches (from 1) is NaN, and their norm statistics are spoilt."""
    seen, kind = [0], type(trainer.loss)
    inner = trainer.set_rates

    def set_rates() -> None:
        seen[0] += 1
        inner()

    def call(self, detector, *args) -> LossParts:
        parts = kind.__call__(self, detector, *args)
        return LossParts(parts.box * math.nan, *parts[1:]) if seen[0] in batches else parts

    look = trainer.watch.fine

    def fine(*args) -> bool:
        if seen[0] in batches:
            trainer.detector.backbone.conv1.synapse.norm.running_mean.fill_(math.nan)
        return look(*args)

    trainer.watch.fine = fine  # type: ignore[method-assign]
    trainer.set_rates = set_rates  # type: ignore[method-assign]
    trainer.loss = type("Broken", (kind,), {"__call__": call})()


def test_such_batches_can_be_left_out_and_are_counted(tiny_config, capsys):
    config = tiny_config(**SHORT, nonfinite="skip", save_seconds=0)
    trainer = Trainer(config)
    broken_at(trainer, {2, 5})
    assert trainer.fit()
    with open(Path(config.out) / "log.csv") as file:
        (row,) = csv.DictReader(file)
    assert row["skipped"] == "2" and math.isfinite(float(row["loss"]))
    shown = capsys.readouterr()
    assert "2 batch(es) left out" in shown.out + shown.err
    assert all(t.isfinite().all() for t in load_tensors(trainer.folder.last)[0].values())


def test_a_batch_left_out_changes_nothing(tiny_config):
    one, other = (Trainer(tiny_config(**SHORT, nonfinite="skip"), quiet=True) for _ in range(2))
    broken_at(one, {6})  # the last
    assert one.fit()
    broken_at(other, set())
    at_batch(other, 6, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        other.fit()
    for a, b in zip(one.detector.state_dict().values(), other.detector.state_dict().values()):
        assert torch.equal(a, b)


def test_too_many_in_a_row_end_the_run(tiny_config, monkeypatch):
    monkeypatch.setattr(health, "IN_A_ROW", 3)
    trainer = Trainer(tiny_config(**SHORT, nonfinite="skip"), quiet=True)
    broken_at(trainer, {1, 3, 4, 5})
    with pytest.raises(InputError, match="3 batches in a row had to be left out: the loss is not finite"):
        trainer.fit()
    assert trainer.batch == 4


def test_a_batch_whose_later_part_alone_is_bad_is_a_bad_batch(weights_file, monkeypatch):
    monkeypatch.setattr(health, "IN_A_ROW", 3)
    detector, _ = load_detector(weights_file)
    watch, state = Watch(detector, list(detector.parameters()), skip=True), detector(torch.zeros(1, 3, 64, 64))[1]
    for _ in range(2):
        watch.start()
        assert watch.fine(torch.ones(()), [state], last=False) and not watch.fine(torch.tensor(math.nan), [state], last=True)
    watch.start()
    assert watch.fine(torch.ones(()), [state], last=False)
    with pytest.raises(InputError, match="3 batches in a row had to be left out"):
        watch.fine(torch.tensor(math.nan), [state], last=True)


def test_what_is_remembered_of_the_weights_is_looked_at_before_it_is_saved(tiny_config):
    """Form `paper` may leave a NaN in lambda under weights that are still finite."""
    trainer = Trainer(tiny_config(**SHORT, form="paper"), quiet=True)
    assert trainer.watch.check() is None
    trainer.rule.state_dict()["lam"][3][0] = math.nan
    assert trainer.watch.check() == (0, "lam of a weight is not finite")


def test_nothing_waits_for_the_device_between_two_looks(tiny_config, monkeypatch):
    """Reading a value back is what `.item()`, `.tolist()` and `bool()` do."""
    trainer = Trainer(tiny_config(**SHORT), quiet=True)
    watch, state = trainer.watch, trainer.detector(torch.zeros(1, 3, 64, 64))[1]
    for w in watch.weights:
        w.grad = torch.ones_like(w)
    for name in ("item", "tolist", "__bool__", "__float__", "cpu", "numpy"):
        monkeypatch.setattr(Tensor, name, lambda *_, name=name: pytest.fail(f"{name} waits for the device"))
    watch.start()
    assert watch.fine(torch.ones(()), [state], last=True)


# --- layers that never or always fire ---


def test_dead_and_saturated_layers_are_told_and_counted(tiny_config, capsys):
    config = tiny_config(**SHORT)
    trainer = Trainer(config, quiet=True)
    norms = {n: m for n, m in trainer.detector.named_modules() if n.endswith("synapse.norm")}
    silent, busy = list(norms)[2], list(norms)[4]
    for name, bias in ((silent, -1e3), (busy, 1e3)):
        norms[name].bias.data.fill_(bias)
    assert trainer.fit()
    shown = capsys.readouterr()
    with open(Path(config.out) / "log.csv") as file:
        (row,) = csv.DictReader(file)
    told = shown.out + shown.err
    names = [name.removesuffix(".synapse.norm") for name in (silent, busy)]
    assert f"{names[0]} almost never fires (0)" in told and f"{names[1]} almost always fires (1)" in told
    assert int(row["dead_layers"]) == told.count("almost never fires") and row["saturated_layers"] == "1"


def test_a_healthy_network_is_not_worth_a_line():
    assert told({"a": 0.1, "b": 0.02}) == "" and told({"a": 0.0, "b": 0.95}) == "a almost never fires (0); b almost always fires (0.95)"


# --- streams and files ---


def spoilt(state, name: str):
    cell = state.cells[name]
    u = cell.u.clone()
    u[0, 0, 0, 0] = math.nan
    return state._replace(cells={**state.cells, name: cell._replace(u=u)})


@pytest.fixture
def predictor(weights_file) -> Predictor:
    return Predictor.load(weights_file, confidence=0.05)


def frames(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(count)]


def test_a_stream_stops_at_a_state_that_is_not_finite(predictor):
    _, state = predictor.step(frames(1)[0])
    names = list(state.cells)
    bad = spoilt(spoilt(state, names[3]), names[7])
    with pytest.raises(NotFinite, match=f"the state of {names[3]} is not finite"):
        check_state(bad)
    with pytest.raises(NotFinite, match="start anew from rest"):
        predictor.step(frames(1)[0], bad)
    predictor.step(frames(1)[0], bad, check=False)


class Striking(Predictor):
    """Its state is spoilt after frame 4, once."""

    seen = 0

    def step(self, image, state=None, steps=1, check=True):
        self.seen += 1
        found, state = super().step(image, state, steps, check)
        return found, spoilt(state, list(state.cells)[2]) if self.seen == 4 else state


def test_a_stream_can_begin_anew_and_says_so(weights_file):
    film = frames(7)
    striking = Striking.load(weights_file, confidence=0.05)
    with pytest.raises(NotFinite, match="frame 6: the state of"):
        list(striking.stream(film, every=3))
    striking = Striking.load(weights_file, confidence=0.05)
    with pytest.warns(UserWarning, match=r"frame 6: .* done, 1 time\(s\) so far"):
        found = list(striking.stream(film, every=3, restart=True))
    again = list(Predictor.load(weights_file, confidence=0.05).stream(film[5:]))
    assert len(found) == 7
    for a, b in zip(found[5:], again):
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores)


def test_the_twin_has_no_state_to_look_at():
    detector = build_detector("yolov4_tiny", 3, width=0.05).eval()
    check_state(detector(torch.zeros(1, 3, 64, 64))[1])
    Watch(detector, list(detector.parameters())).start()


def test_weights_that_are_not_finite_are_refused(tmp_path):
    detector = build_detector("spyv4_lite", 3, width=0.05)
    nan_in(detector, "backbone.conv1.synapse.conv.weight")
    save_weights(tmp_path / "w.safetensors", detector, WeightsInfo(detector.spec, ("a", "b", "c")))
    with pytest.raises(InputError, match=r"tensor backbone.conv1.synapse.conv.weight holds values that are not finite"):
        load_detector(tmp_path / "w.safetensors")
