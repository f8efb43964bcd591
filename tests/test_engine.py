"""Learning from a batch step by step, detecting after every step, and norms taken anew."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from spyolo import engine
from spyolo.boxes import Detections, Objects
from spyolo.data import SAMPLE_CLASSES, Batch, DetectionDataset, VOCSet, collate
from spyolo.detection import DetectionLoss, Reading, SpikingYOLO, build_detector
from spyolo.learning import BPTT, FPTT, Rule
from spyolo.neurons import BatchRenorm2d, detach, leaves, norms
from spyolo.running import EpochOrder

ALPHA = 0.3


def tiny(name: str = "spyv4_lite", seed: int = 0, **options: object) -> SpikingYOLO:
    torch.manual_seed(seed)
    detector = build_detector(name, len(SAMPLE_CLASSES), **{"width": 0.05, "threshold": 0.3, **options})
    return detector.train()


@pytest.fixture
def batch(sample_root) -> Batch:
    voc = VOCSet(sample_root, "2007:train", SAMPLE_CLASSES)
    dataset = DetectionDataset(voc, 64, "eval")
    return collate([dataset[i] for i in range(4)])


def sgd(detector: SpikingYOLO, lr: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.SGD(detector.parameters(), lr=lr)


def learn(detector: SpikingYOLO, rule: Rule, batch: Batch, plan: list[int], **options: object) -> engine.StepLog:
    return engine.train_batch(detector, DetectionLoss(), rule, batch.images, batch.objects, plan, **options)


# --- memory: what online learning is for ---


class Saved:
    """A tensor kept for a backward pass; the meter counts the bytes of those alive."""

    def __init__(self, tensor: Tensor, meter: PeakMeter) -> None:
        self.tensor = tensor
        size = tensor.numel() * tensor.element_size()
        meter.alive += size
        meter.peak = max(meter.peak, meter.alive)
        weakref.finalize(self, meter.free, size)


class PeakMeter:
    """Most bytes that were kept for backward passes at one time."""

    alive = peak = 0

    def free(self, size: int) -> None:
        self.alive -= size

    def of(self, work: Callable[[], object]) -> int:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: Saved(t, self), lambda s: s.tensor):
            work()
        return self.peak


def peak(make_rule: Callable[[torch.optim.Optimizer], Rule], plan: list[int], batch: Batch) -> int:
    detector = tiny()
    rule = make_rule(sgd(detector))
    return PeakMeter().of(lambda: learn(detector, rule, batch, plan))


def test_memory_of_fptt_does_not_grow_with_time_and_that_of_bptt_does(batch):
    few, many = (peak(lambda o: FPTT(o, ALPHA), [1] * t, batch) for t in (4, 16))
    assert many < 1.001 * few
    short, long = (peak(BPTT, [t], batch) for t in (4, 16))
    assert 3.9 < long / short < 4.1 and 3.5 < short / few < 4.5
    assert peak(lambda o: FPTT(o, ALPHA), [4] * 4, batch) == pytest.approx(short, rel=0.03)  # FPTT-K: as one part (the first is less)


def test_updates_come_after_each_part(batch):
    """The loss a part reports is taken before its update, so a rule that learns shows it within one batch."""
    detector = tiny()
    updates = []
    learn(detector, FPTT(sgd(detector), ALPHA), batch, [2, 1, 1], after_update=lambda: updates.append(detector.heads[0].conv.bias.clone()))
    assert len(updates) == 3 and not torch.equal(updates[0], updates[1]) and not torch.equal(updates[1], updates[2])


def hand_written(detector: SpikingYOLO, batch: Batch, plan: list[int], lr: float) -> float:
    """FPTT-K written out for the detector: BPTT in a part, then the four lines of the rule."""
    loss, weights = DetectionLoss(), list(detector.parameters())
    average, lam = [w.detach().clone() for w in weights], [torch.zeros_like(w) for w in weights]
    targets, state, told = loss.assign(detector, batch.objects, (64, 64)), None, 0.0
    for steps in plan:
        state = None if state is None else detach(state)
        part = torch.zeros(())
        for _ in range(steps):
            predictions, state = detector(batch.images, state)
            part = part + loss(detector, predictions, targets).total / steps
        for w, w_bar, m, g in zip(weights, average, lam, torch.autograd.grad(part, weights, allow_unused=True)):
            if g is None:  # the readout's leak says nothing in the first step
                continue
            w.data -= lr * (g + ALPHA * (w.data - w_bar) - m)
            m -= ALPHA * (w.data - w_bar)
            w_bar.copy_((w_bar + w.data) / 2 - m / (2 * ALPHA))
        told += part.item() * steps
    return told / sum(plan)


@pytest.mark.parametrize("plan", [[1, 1, 1], [2, 1], [3]])
def test_a_batch_is_what_the_written_out_loop_makes_of_it(batch, plan):
    detector, twin = tiny(), tiny()
    log = learn(detector, FPTT(sgd(detector), ALPHA), batch, plan)
    told = hand_written(twin, batch, plan, lr=0.01)
    assert log.loss.item() == pytest.approx(told, rel=1e-5)
    for (name, a), b in zip(detector.state_dict().items(), twin.state_dict().values()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("norm", ["batch", "renorm"])
def test_the_second_forward_of_paper_starts_from_the_same_state_and_leaves_norms_alone(batch, norm, monkeypatch):
    detector = tiny(norm=norm)
    rule = FPTT(sgd(detector), ALPHA, form="paper")
    seen: list[tuple[list[Tensor], list[Tensor], list[Tensor]]] = []
    inner = engine.part_loss

    def spied(*args, **how):
        state = args[4]
        before = [] if state is None else [t.clone() for t in leaves(state)]
        weights = [w.detach().clone() for w in rule.weights]
        result = inner(*args, **how)
        seen.append((before, weights, [t.clone() for m in norms(detector) for t in (m.running_mean, m.running_var)]))
        return result

    monkeypatch.setattr(engine, "part_loss", spied)
    learn(detector, rule, batch, [1, 1])
    assert len(seen) == 4  # two forwards a step
    for first, second in (seen[:2], seen[2:]):
        assert len(first[0]) == len(second[0]) and all(torch.equal(a, b) for a, b in zip(first[0], second[0]))
        assert not all(torch.equal(a, b) for a, b in zip(first[1], second[1]))  # at the new weights
        assert all(torch.equal(a, b) for a, b in zip(first[2], second[2]))
    assert seen[2][0] and any(t.any() for t in seen[2][0])  # the second step comes from a state that is not rest
    assert all(m.momentum == 0.1 and m.num_batches_tracked == 2 for m in norms(detector))


def test_feddyn_needs_one_forward_a_step(batch, monkeypatch):
    detector, calls = tiny(), []
    inner = engine.part_loss
    monkeypatch.setattr(engine, "part_loss", lambda *a, **k: (calls.append(1), inner(*a, **k))[1])
    learn(detector, FPTT(sgd(detector), ALPHA), batch, [1, 1])
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["spyv4_lite", "yolov4_tiny"])
@pytest.mark.parametrize("objects", ["none", "difficult only"])
def test_a_batch_with_nothing_to_find_is_finite(batch, name, objects):
    box = Objects(torch.tensor([[3.0, 3.0, 40.0, 40.0]]), torch.tensor([0]), torch.tensor([True]))
    empty = Batch(batch.images, [Objects.empty() if objects == "none" else box] * 4, batch.ids, batch.letterboxes)
    detector = tiny(name)
    log = learn(detector, FPTT(torch.optim.AdamW(detector.parameters(), 1e-3), ALPHA, clip=1.0), empty, [1, 1])
    assert all(torch.isfinite(w).all() for w in detector.parameters())
    assert torch.isfinite(log.loss) and log.objectness > 0 and log.box == 0 and log.classes == 0


def test_the_rate_penalty_pulls_silent_channels_up(batch):
    """With the task switched off, only the penalty is left to learn from."""
    detector = tiny(threshold=1.0, surrogate="multi_gaussian")
    rule = FPTT(torch.optim.AdamW(detector.parameters(), 1e-2, weight_decay=0), ALPHA)
    how = {"penalty": engine.Penalty(100.0, low=0.2, high=0.9)}
    loss = DetectionLoss(box=0, objectness=0, classes=0)
    rates = [engine.train_batch(detector, loss, rule, batch.images, batch.objects, [1, 1], **how).rate.item() for _ in range(12)]
    assert rates[0] < 0.06 and rates[-1] > rates[0] + 0.03
    assert engine.train_batch(detector, loss, rule, batch.images, batch.objects, [1]).loss == 0  # none by default


def test_bf16_autocast_leaves_state_weights_and_loss_in_fp32(batch):
    detector = tiny()
    rule = FPTT(sgd(detector), ALPHA)
    targets = DetectionLoss().assign(detector, batch.objects, (64, 64))
    loss, _, state = engine.part_loss(detector, DetectionLoss(), batch.images, targets, None, 1, "bf16", engine.Penalty())
    assert loss.dtype == torch.float32
    assert all(cell.u.dtype == torch.float32 for cell in state.cells.values())
    learn(detector, rule, batch, [1, 1], amp="bf16")
    assert all(t.dtype == torch.float32 for t in [*rule.weights, *rule.average, *rule.lam])


def test_one_epoch_yields_a_log_a_batch_and_asks_before_each(batch):
    detector, asked = tiny().eval(), []
    how = {"device": torch.device("cpu"), "before_batch": lambda: asked.append(1)}
    logs = engine.train_one_epoch(detector, DetectionLoss(), FPTT(sgd(detector), ALPHA), [batch, batch], [1], **how)
    assert next(logs)[0] is batch
    assert len(asked) == 1 and detector.training  # one batch at a time: the caller may stop between two
    assert len(list(logs)) == 1 and len(asked) == 2


# --- detection ---


@pytest.fixture
def dataset(sample_root) -> DetectionDataset:
    return DetectionDataset(VOCSet(sample_root, "2007:train", SAMPLE_CLASSES).subset(range(5)), 64, "eval")


@pytest.fixture
def seeing(dataset) -> SpikingYOLO:
    """A detector that says something: its norms calibrated, its logits apart."""
    detector = tiny()
    engine.recalibrate(detector, [collate([dataset[i] for i in range(5)])], 3, device=torch.device("cpu"))
    with torch.no_grad():
        for head in detector.heads:
            head.conv.weight.normal_(std=0.3)
    return detector.eval()


def same(a: dict[str, Detections], b: dict[str, Detections]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[k].boxes, b[k].boxes) and torch.equal(a[k].scores, b[k].scores) and torch.equal(a[k].labels, b[k].labels) for k in a
    )


def test_one_pass_reads_out_after_every_step_what_separate_passes_do(seeing, dataset):
    options = {"reading": Reading(0.01), "batch_size": 2}
    together = engine.detect(seeing, dataset, (1, 2, 4), **options)
    assert list(together) == [1, 2, 4] and all(list(found) == dataset.voc.ids for found in together.values())
    for t in (1, 2, 4):
        assert same(together[t], engine.detect(seeing, dataset, (t,), **options)[t])
    assert sum(map(len, together[1].values())) > 0 and not same(together[1], together[4])


@pytest.mark.parametrize("options", [{}, {"start": "uniform"}])
def test_two_runs_are_identical(dataset, options):
    for detector in (tiny(**options), tiny("yolov4_tiny")):
        first = engine.detect(detector, dataset, (2,), reading=Reading(0))[2]
        torch.randn(7)  # whatever was drawn in between
        assert same(first, engine.detect(detector, dataset, (2,), reading=Reading(0))[2])


def test_neighbours_in_a_batch_do_not_matter(seeing, dataset):
    whole = engine.detect(seeing, dataset, (3,), reading=Reading(0.01), batch_size=5)[3]
    for i, name in enumerate(dataset.voc.ids):
        alone = engine.detect(seeing, DetectionDataset(dataset.voc.subset([i]), 64, "eval"), (3,), reading=Reading(0.01), batch_size=1)[3]
        torch.testing.assert_close(alone[name].boxes, whole[name].boxes, rtol=1e-4, atol=1e-3)


def test_boxes_lie_in_the_picture_s_own_pixels(seeing, dataset):
    found = engine.detect(seeing, dataset, (2,), reading=Reading(0.0))[2]
    reach = torch.zeros(2)
    for i, name in enumerate(dataset.voc.ids):
        size = torch.tensor(dataset.voc.size(i), dtype=torch.float32)
        assert (found[name].boxes[:, :2] >= 0).all() and (found[name].boxes[:, 2:] <= size + 1e-3).all()
        reach = torch.maximum(reach, found[name].boxes[:, 2:].amax(0))
    assert reach.max() > 64  # the canvas is 64: these are not its pixels


def test_limits_of_detection_are_kept(seeing, dataset):
    found = engine.detect(seeing, dataset, (2,), reading=Reading(0.02, max_detections=3))[2]
    assert max(map(len, found.values())) == 3 and all((d.scores > 0.02).all() for d in found.values())


# --- norms taken anew ---


def test_recalibration_is_a_plain_mean_over_batches(dataset):
    """The first norm sees the same current at each step: its statistics are means of those of the batches."""
    detector = tiny(start="zeros").eval()
    batches = [collate([dataset[i] for i in chosen]) for chosen in ((0, 1), (2, 3, 4))]
    first = norms(detector)[0]
    first.running_mean.fill_(1e3)  # what was there before must not matter, however long it took
    first.num_batches_tracked.fill_(50)
    engine.recalibrate(detector, batches, 3, device=torch.device("cpu"))
    conv = detector.backbone.conv1.synapse.conv
    currents = [conv(b.images / 255).detach() for b in batches]
    torch.testing.assert_close(first.running_mean, torch.stack([c.mean((0, 2, 3)) for c in currents]).mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first.running_var, torch.stack([c.var((0, 2, 3)) for c in currents]).mean(0), rtol=1e-4, atol=1e-5)
    assert first.num_batches_tracked == 2 * 3
    assert not detector.training and all(m.momentum == 0.1 for m in norms(detector))


def test_recalibration_changes_statistics_and_nothing_else(dataset):
    for norm in ("batch", "renorm"):
        detector = tiny(norm=norm)
        before = {k: v.clone() for k, v in detector.state_dict().items()}
        engine.recalibrate(detector, [collate([dataset[i] for i in range(5)])], 2, device=torch.device("cpu"))
        after, statistics = detector.state_dict(), ("running_mean", "running_var", "num_batches_tracked")
        assert all(torch.equal(before[k], after[k]) != k.endswith(statistics) for k in before)
        assert detector.training and isinstance(norms(detector)[0], BatchRenorm2d) == (norm == "renorm")


# --- the order of an epoch ---


def test_an_epoch_shows_each_picture_once_and_the_next_in_another_order():
    epochs = [[i for b in EpochOrder(10, 3, seed=0, epoch=e) for i in b] for e in (0, 1)]
    assert all(len(set(order)) == len(order) == 9 for order in epochs) and epochs[0] != epochs[1]
    assert [i for b in EpochOrder(10, 3, 0, 0) for i in b] == epochs[0] != [i for b in EpochOrder(10, 3, 1, 0) for i in b]


def test_an_order_goes_on_where_it_was_interrupted():
    whole, rest = EpochOrder(10, 3, 0, 0), EpochOrder(10, 3, 0, 0, first=2)
    assert list(rest) == list(whole)[2:] and (len(whole), len(rest)) == (3, 1)


def test_fewer_pictures_than_a_batch_are_one_batch():
    assert [sorted(b) for b in EpochOrder(2, 16, 0, 0)] == [[0, 1]]
    assert len(EpochOrder(100, 10, 0, 0, most=4)) == len(list(EpochOrder(100, 10, 0, 0, most=4))) == 4
