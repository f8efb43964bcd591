"""The detection loss against a slow one written in loops, and its promises one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from spyolo.boxes import Objects
from spyolo.detection import DetectionLoss, LossParts, Reading, Targets, postprocess

STRIDES = (16, 32)
SIZE = (64, 96)  # height, width: 4 x 6 and 2 x 3 cells
ANCHORS = [torch.tensor([[0.15, 0.2], [0.3, 0.2]], dtype=torch.float64), torch.tensor([[0.5, 0.5], [0.8, 0.4]], dtype=torch.float64)]
CLASSES = 3
DETECTOR = SimpleNamespace(anchors=ANCHORS, strides=STRIDES)  # all the loss wants to know of a detector


def random_logits(batch: int, seed: int = 0, scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, 2 * (5 + CLASSES), SIZE[0] // s, SIZE[1] // s) for s in STRIDES]
    return [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def terms(loss: DetectionLoss, logits: Sequence[Tensor], objects: Sequence[Objects]) -> LossParts:
    return loss(DETECTOR, logits, loss.assign(DETECTOR, objects, SIZE))


# --- the same in loops over numbers -------------------------------------------------------------------------------------------------


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def bce(x: float, target: float) -> float:
    return -target * math.log(sigmoid(x)) - (1 - target) * math.log(1 - sigmoid(x))


def overlap(a: list[float], b: list[float]) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def ciou_loss(a: list[float], b: list[float]) -> float:
    """1 - IoU + (distance of the centres / diagonal of the hull)^2 + alpha v: Zheng et al. (2020)."""
    iou = overlap(a, b)
    distance = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    diagonal = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    v = 4 / math.pi**2 * (math.atan((b[2] - b[0]) / (b[3] - b[1])) - math.atan((a[2] - a[0]) / (a[3] - a[1]))) ** 2
    return 1 - iou + distance / diagonal + v * v / (1 - iou + v + 1e-12)


def slow_assign(objects: Objects, factor: float) -> list[tuple[int, int, int, int, int]]:
    """(scale, anchor, row, column, object) of one picture."""
    found = []
    for n, (x1, y1, x2, y2) in enumerate(objects.boxes.tolist()):
        worst = {}
        for k, a in itertools.product(range(2), range(2)):
            aw, ah = (ANCHORS[k][a] * max(SIZE)).tolist()
            worst[k, a] = max((x2 - x1) / aw, aw / (x2 - x1), (y2 - y1) / ah, ah / (y2 - y1))
        fits = [key for key, w in worst.items() if w < factor] or [min(worst, key=worst.__getitem__)]
        for k, a in fits:
            cx, cy = (x1 + x2) / 2 / STRIDES[k], (y1 + y2) / 2 / STRIDES[k]
            x, y = math.floor(cx), math.floor(cy)
            left_or_right, up_or_down = x + (-1 if cx - x < 0.5 else 1), y + (-1 if cy - y < 0.5 else 1)
            for column, row in [(x, y), (left_or_right, y), (x, up_or_down)]:
                if 0 <= column < SIZE[1] // STRIDES[k] and 0 <= row < SIZE[0] // STRIDES[k]:
                    found.append((k, a, row, column, n))
    return found


def slow_loss(logits: Sequence[Tensor], objects: Sequence[Objects], loss: DetectionLoss) -> tuple[float, float, float]:
    box = objectness = classes = 0.0
    positives = 0
    for b, o in enumerate(objects):
        boxes, labels, difficult = o.boxes.tolist(), o.labels.tolist(), o.difficult.tolist()
        assigned = slow_assign(o, loss.factor)
        for k, a in itertools.product(range(2), range(2)):
            for row, column in itertools.product(range(SIZE[0] // STRIDES[k]), range(SIZE[1] // STRIDES[k])):
                p = logits[k][b, a * (5 + CLASSES) : (a + 1) * (5 + CLASSES), row, column].tolist()
                cx, cy = (column + 2 * sigmoid(p[0]) - 0.5) * STRIDES[k], (row + 2 * sigmoid(p[1]) - 0.5) * STRIDES[k]
                aw, ah = (ANCHORS[k][a] * max(SIZE)).tolist()
                w, h = aw * (2 * sigmoid(p[2])) ** 2, ah * (2 * sigmoid(p[3])) ** 2
                predicted = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
                mine = [n for *entry, n in assigned if entry == [k, a, row, column]]
                want = 0.0
                for n in mine:
                    if difficult[n]:
                        continue
                    positives += 1
                    c = ciou_loss(predicted, boxes[n])
                    box += c
                    want = max(want, 1 - loss.iou_target * min(1.0, max(0.0, c)))
                    for j in range(CLASSES):
                        classes += bce(p[5 + j], (1 - loss.smoothing) * (j == labels[n]) + loss.smoothing / 2)
                hard = any(difficult[n] for n in mine)
                near = any(overlap(predicted, truth) > loss.ignore_iou for truth in boxes)
                if want > 0 or not (hard or near):
                    objectness += bce(p[4], want)
    gains = loss.gains
    return tuple(g * v / max(1, positives) for g, v in zip(gains, (box, objectness, classes)))


@pytest.fixture
def pictures(truth) -> list[Objects]:
    """Three pictures: a crowd (two objects share cells, one fits no anchor), a difficult one near an easy one, and nothing."""
    crowd = truth((10.5, 8, 30, 30, 0), (12, 9, 31, 33, 2), (2, 40, 95, 62.5, 1), (70, 3, 71.5, 6, 1))
    mixed = truth((41, 21, 71, 47, 2), (38, 24, 70, 44, 0, "difficult"), (4, 4, 18, 22, 1, "difficult"))
    return [crowd, mixed, truth()]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"box": 1.0, "objectness": 2.0, "classes": 0.5},
        {"iou_target": 0.0},
        {"iou_target": 0.9},
        {"smoothing": 0.1},
        {"ignore_iou": 0.2},
        {"ignore_iou": 1.0},
        {"factor": 2.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_slow_loss(pictures, options: dict, seed: int):
    loss, logits = DetectionLoss(**options), random_logits(3, seed)
    fast = [v.item() for v in terms(loss, logits, pictures)]
    assert fast == pytest.approx(slow_loss(logits, pictures, loss), rel=1e-6)


def test_parts_add_up(pictures):
    parts = terms(DetectionLoss(), random_logits(3), pictures)
    assert parts.total.item() == pytest.approx(sum(v.item() for v in parts))


# --- gradients ----------------------------------------------------------------------------------------------------------------------


def numerical(f, logits: list[Tensor], where: tuple[int, ...], d: float = 1e-6) -> float:
    """Slope of f along one logit: (scale, picture, channel, row, column)."""
    k, *index = where
    values = []
    for sign in (1, -1):
        moved = [p.clone() for p in logits]
        moved[k][tuple(index)] += sign * d
        values.append(f(moved).item())
    return (values[0] - values[1]) / (2 * d)


def test_objectness_and_class_gradients_are_numerical_ones(pictures):
    """Boxes stand still under these logits, so the targets do too."""
    loss, logits = DetectionLoss(smoothing=0.1), [p.requires_grad_() for p in random_logits(3)]
    grads = torch.autograd.grad(terms(loss, logits, pictures).total, logits)
    where = [(k, b, c, 1, x) for k, b, c, x in itertools.product((0, 1), (0, 1), (4, 5, 7, 12, 14), (0, 1, 2))]
    fixed = [p.detach() for p in logits]
    for at in where:
        slope = numerical(lambda moved: terms(loss, moved, pictures).total, fixed, at)
        assert grads[at[0]][at[1:]].item() == pytest.approx(slope, abs=1e-7)
    assert sum(bool(grads[at[0]][at[1:]] != 0) for at in where) > 20


def test_box_gradients_are_numerical_ones_where_shapes_agree(truth):
    """With v = 0 (equal aspect) the CIoU's detached alpha makes no difference: the gradient along the centre is the true one."""
    # anchor 0 at stride 16 is 14.4 x 19.2 with zero size logits; the object has its sides and lies off by some pixels
    objects = [truth((20, 30, 34.4, 49.2, 1))]
    loss = DetectionLoss(iou_target=0.0, objectness=0.0, classes=0.0, factor=1.2)
    logits = [0.0 * p for p in random_logits(1)]
    for x, y in [(1, 2), (2, 2), (1, 1)]:
        logits[0][0, :2, y, x] = torch.tensor([0.3, -0.2])
    moving = [p.clone().requires_grad_() for p in logits]
    (grad, _) = torch.autograd.grad(terms(loss, moving, objects).total, moving, allow_unused=True)
    checked = [(0, 0, c, 2, 1) for c in (0, 1)]
    for at in checked:
        slope = numerical(lambda moved: terms(loss, moved, objects).total, logits, at)
        assert slope != 0 and grad[at[1:]].item() == pytest.approx(slope, rel=1e-5)
    assert (grad.abs().sum(1)[0] > 0).sum() == 3  # three cells answer, and no other box is pulled


def test_the_objectness_target_carries_no_gradient(truth):
    """A box must not get worse to please its own score."""
    objects = [truth((20, 30, 40, 50, 1))]
    logits = [p.requires_grad_() for p in random_logits(1)]
    parts = terms(DetectionLoss(iou_target=1.0), logits, objects)
    grads = torch.autograd.grad(parts.objectness, logits)
    boxes = [g.view(1, 2, 5 + CLASSES, *g.shape[2:])[:, :, :4] for g in grads]
    assert all(b.count_nonzero() == 0 for b in boxes)


# --- promises -----------------------------------------------------------------------------------------------------------------------


def perfect(targets: Targets, batch: int, sure: float = 25.0) -> list[Tensor]:
    """Logits that say exactly what the targets do."""
    logits = [torch.full_like(p, 0.0) for p in random_logits(batch)]
    for p, t, anchors, stride in zip(logits, targets.scales, ANCHORS, STRIDES):
        view = p.view(batch, 2, 5 + CLASSES, *p.shape[2:])
        view[:, :, 4:] = -sure
        for b, a, y, x, box, label in zip(t.picture, t.anchor, t.y, t.x, t.boxes.double(), t.labels):
            offset = (box[:2] + box[2:]) / 2 / stride - torch.stack([x, y])
            view[b, a, :2, y, x] = torch.logit((offset + 0.5) / 2)
            view[b, a, 2:4, y, x] = torch.logit(torch.sqrt((box[2:] - box[:2]) / (anchors[a] * max(SIZE))) / 2)
            view[b, a, 4, y, x] = sure
            view[b, a, 5 + label, y, x] = sure
    return logits


def test_perfect_predictions_cost_nothing_and_decode_to_the_truth(truth):
    objects = [truth((10.5, 8, 30, 30, 0), (40, 20, 90, 60, 2)), truth((60, 30, 80, 44, 1))]
    loss = DetectionLoss()
    targets = loss.assign(DETECTOR, objects, SIZE)
    logits = perfect(targets, 2)
    parts = loss(DETECTOR, logits, targets)
    assert max(v.item() for v in parts) < 1e-4
    for found, o in zip(postprocess(logits, ANCHORS, STRIDES, Reading(0.5)), objects):
        order = found.labels.argsort()
        assert found.labels[order].tolist() == o.labels.sort().values.tolist()
        assert torch.allclose(found.boxes[order].float(), o.boxes[o.labels.argsort()], atol=1e-3)


def test_following_the_gradient_finds_the_objects(truth):
    """Loss, assignment and decoding together: logits alone, pushed downhill from nothing."""
    objects = [truth((10, 8, 30, 30, 0), (40, 20, 90, 60, 2), (60, 2, 74, 18, 1)), truth()]
    loss, logits = DetectionLoss(), [torch.zeros_like(p).requires_grad_() for p in random_logits(2)]
    targets = loss.assign(DETECTOR, objects, SIZE)
    optimizer = torch.optim.Adam(logits, lr=0.2)
    for _ in range(120):
        optimizer.zero_grad()
        loss(DETECTOR, logits, targets).total.backward()
        optimizer.step()
    full, empty = postprocess([p.detach() for p in logits], ANCHORS, STRIDES, Reading(0.5))
    assert len(empty) == 0 and sorted(full.labels.tolist()) == [0, 1, 2]
    for box, label in zip(full.boxes.tolist(), full.labels.tolist()):
        assert overlap(box, objects[0].boxes[objects[0].labels == label][0].tolist()) > 0.9


def test_no_objects_at_all(truth):
    # 4 x 6 and 2 x 3 cells of two anchors, each log 2 at a logit of 0
    logits = [torch.zeros_like(p).requires_grad_() for p in random_logits(2)]
    parts = terms(DetectionLoss(), logits, [truth(), truth()])
    assert (parts.box.item(), parts.classes.item()) == (0, 0)
    assert parts.objectness.item() == pytest.approx(2 * 2 * (24 + 6) * math.log(2))
    parts.total.backward()
    assert all(p.grad.isfinite().all() for p in logits)


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wild_logits_and_degenerate_objects_leave_it_finite(truth, scale: float, dtype: torch.dtype):
    objects = [truth((10, 10, 10, 10, 0), (5, 5, 5, 20, 1), (0, 0, 96, 64, 2), (20.0, 20.0, 20.001, 20.001, 0)), truth((30, 30, 34, 50, 1))]
    logits = [p.to(dtype).requires_grad_() for p in random_logits(2, scale=scale)]
    total = terms(DetectionLoss(), logits, objects).total
    total.backward()
    assert total.isfinite() and all(p.grad.isfinite().all() for p in logits)


def gradient_on(entries: Tensor, logits: list[Tensor], objects: list[Objects], **options: object) -> Tensor:
    """Gradient of the total on the entries [B, A, H, W] of the first scale: [N, 5 + classes]."""
    moving = [p.clone().requires_grad_() for p in logits]
    grad = torch.autograd.grad(terms(DetectionLoss(**options), moving, objects).total, moving)[0]
    return grad.view(len(grad), 2, 5 + CLASSES, *grad.shape[2:]).permute(0, 1, 3, 4, 2)[entries]


def test_difficult_objects_are_neither_positive_nor_negative(truth):
    """Nothing is learned where a difficult object might be seen; at the same place an easy one, or none, is learned from."""
    row, logits = (10, 8, 30, 30, 0), random_logits(1)
    easy, hard, none = [truth(row)], [truth((*row, "difficult"))], [truth()]
    entries = DetectionLoss().assign(DETECTOR, hard, SIZE).scales[0].spared
    assert entries.sum() == 6  # two anchors fit, three cells each
    assert gradient_on(entries, logits, hard).count_nonzero() == 0
    assert (gradient_on(entries, logits, easy) != 0).any(1).all()
    assert (gradient_on(entries, logits, none, ignore_iou=1.0)[:, 4] > 0).all()


def test_a_difficult_objects_class_does_not_matter(truth):
    a, b = ([truth((10, 8, 30, 30, label, "difficult"), (40, 20, 90, 60, 2))] for label in (0, 1))
    assert terms(DetectionLoss(), random_logits(1), a).total == terms(DetectionLoss(), random_logits(1), b).total


@pytest.mark.parametrize("difficult", [False, True])
def test_a_box_that_overlaps_an_object_is_no_negative(truth, difficult: bool):
    # The object is 48 x 48 and answers through stride 32 only; a box at stride 16 that happens to cover it is not punished.
    objects = [truth((24, 8, 72, 56, 0, "difficult" if difficult else ""))]
    logits = [0.0 * p for p in random_logits(1)]
    view = logits[0].view(1, 2, 5 + CLASSES, 4, 6)
    view[0, 1, :2, 1, 2] = torch.logit(torch.tensor([0.75, 0.75], dtype=torch.float64))  # centre (48, 32)
    view[0, 1, 2:4, 1, 2] = torch.logit(torch.tensor([48 / 28.8, 48 / 19.2], dtype=torch.float64).sqrt() / 2)  # sides 48, 48
    entry = torch.zeros(1, 2, 4, 6, dtype=torch.bool)
    entry[0, 1, 1, 2] = True
    options = {"factor": 1.1}
    assert len(DetectionLoss(**options).assign(DETECTOR, objects, SIZE).scales[0].labels) == 0
    assert gradient_on(entry, logits, objects, **options).count_nonzero() == 0
    assert gradient_on(entry, logits, objects, ignore_iou=1.0, **options)[0, 4] > 0


def test_label_smoothing_by_hand(truth):
    # One positive class logit of 0: with eps = 0.2 targets are 0.9 and 0.1, and at a logit z of log 9, where sigma = 0.9, the own
    # class is content: its gradient is 0.
    objects, loss = [truth((10, 8, 30, 30, 1))], DetectionLoss(smoothing=0.2, classes=1.0)
    logits = [0.0 * p for p in random_logits(1)]
    for p in logits:
        view = p.view(1, 2, 5 + CLASSES, *p.shape[2:])
        view[:, :, 5:] = -math.log(9)
        view[:, :, 6] = math.log(9)
    moving = [p.requires_grad_() for p in logits]
    grads = torch.autograd.grad(terms(loss, moving, objects).classes, moving)
    assert all(g.abs().max() < 1e-12 for g in grads)
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert terms(loss, moving, objects).classes.item() == pytest.approx(3 * entropy)


@pytest.mark.parametrize("iou_target", [0.0, 0.5, 1.0])
def test_where_two_objects_claim_a_cell_the_better_box_sets_the_target(truth, iou_target: float):
    # Zero logits show the anchor 14.4 x 19.2 in the middle of cell (1, 2), at (24, 40): the first object is that very box.
    exact = (24 - 7.2, 40 - 9.6, 24 + 7.2, 40 + 9.6, 0)
    other = (24 - 7.2, 40 - 9.6, 24 + 9.2, 40 + 12.6, 1)
    entry = torch.zeros(1, 2, 4, 6, dtype=torch.bool)
    entry[0, 0, 2, 1] = True
    logits, options = [0.0 * p for p in random_logits(1)], {"iou_target": iou_target, "factor": 1.5, "classes": 0.0}
    grads = [gradient_on(entry, logits, [truth(*rows)], **options)[0] for rows in ([exact, other], [other, exact])]
    positives = sum(len(t.labels) for t in DetectionLoss(factor=1.5).assign(DETECTOR, [truth(exact, other)], SIZE).scales)
    for grad in grads:
        assert grad[4].item() == pytest.approx((0.5 - 1.0) / positives, abs=1e-6)  # (sigma(0) - target) / positives


def test_order_of_objects_does_not_matter(pictures):
    logits = [p.requires_grad_() for p in random_logits(3)]
    shuffled = [o[torch.randperm(len(o), generator=torch.Generator().manual_seed(1))] for o in pictures]
    shuffled[0] = shuffled[0][torch.tensor([3, 2, 1, 0])]
    answers = []
    for objects in (pictures, shuffled):
        total = terms(DetectionLoss(), logits, objects).total
        answers.append((total, *torch.autograd.grad(total, logits)))
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(*answers))


def test_order_of_pictures_does_not_matter(pictures):
    logits, order = random_logits(3), [2, 0, 1]
    one = terms(DetectionLoss(), logits, pictures).total
    other = terms(DetectionLoss(), [p[order] for p in logits], [pictures[i] for i in order]).total
    assert one.item() == pytest.approx(other.item(), rel=1e-12)


def test_one_assignment_serves_every_step(pictures):
    loss = DetectionLoss()
    targets = loss.assign(DETECTOR, pictures, SIZE)
    first = loss(DETECTOR, random_logits(3, 0), targets).total
    loss(DETECTOR, random_logits(3, 1), targets)
    assert loss(DETECTOR, random_logits(3, 0), targets).total == first
