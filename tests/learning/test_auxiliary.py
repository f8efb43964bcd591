"""The auxiliary loss for labels that come at the end."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from spyolo.learning import AuxiliaryLoss, build_rule
from spyolo.neurons import Readout, Stack, dense_cell

LOGITS, LABELS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]]), torch.tensor([0, 2])


def test_the_last_part_is_the_cross_entropy_of_the_label():
    aux = AuxiliaryLoss(3, 4)
    torch.testing.assert_close(aux(LOGITS, LABELS, 3), nn.functional.cross_entropy(LOGITS, LABELS))


@pytest.mark.parametrize("scaling", ["sound", "reference"])
def test_earlier_parts_mix_in_the_estimate(scaling):
    """Written out; the reference takes the mean over the classes too: a third of a cross-entropy with three classes."""
    aux = AuxiliaryLoss(3, 4, scaling=scaling)
    aux.Q[0, 1], aux.Q[2, 1] = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.1, 0.8])
    second = nn.functional.cross_entropy(LOGITS, torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]))
    if scaling == "reference":
        torch.testing.assert_close(second / 3, (-aux.Q[LABELS, 1] * LOGITS.log_softmax(-1)).mean())
        second = second / 3
    expected = 0.5 * nn.functional.cross_entropy(LOGITS, LABELS) + 0.5 * second
    torch.testing.assert_close(aux(LOGITS, LABELS, 1), expected)
    torch.testing.assert_close(aux.at(1)(LOGITS, LABELS), expected)


def test_the_estimate_follows_the_mean_answer():
    aux = AuxiliaryLoss(3, 2, rate=0.25)
    aux.update(torch.cat([LOGITS, LOGITS[:1]]), torch.tensor([0, 2, 0]), 0)
    uniform, answers = torch.full((3,), 1 / 3), LOGITS.softmax(-1)
    torch.testing.assert_close(aux.Q[0, 0], 0.75 * uniform + 0.25 * answers[0])
    torch.testing.assert_close(aux.Q[2, 0], 0.75 * uniform + 0.25 * answers[1])
    torch.testing.assert_close(aux.Q[1, 0], uniform)  # no sample of that class
    torch.testing.assert_close(aux.Q[:, 1], uniform.expand(3, 3))
    torch.testing.assert_close(aux.Q.sum(-1), torch.ones(3, 2))


def test_the_references_policy_takes_the_first_misclassified_sample():
    aux = AuxiliaryLoss(3, 2, policy="misclassified")
    logits = torch.stack([LOGITS[0], LOGITS[1], 2 * LOGITS[1]])
    aux.update(logits, torch.tensor([0, 2, 2]), 1)
    torch.testing.assert_close(aux.Q[2, 1], LOGITS[1].softmax(-1))  # not the second one
    torch.testing.assert_close(aux.Q[0, 1], torch.full((3,), 1 / 3))  # class 0 was right


def test_nothing_moves_in_the_warm_up():
    aux = AuxiliaryLoss(3, 2, warm_up=2)
    for epoch in range(3):
        aux.epoch = epoch
        aux.update(LOGITS, LABELS, 0)
        assert bool((aux.Q == 1 / 3).all()) == (epoch < 2)


def test_with_a_rule():
    torch.manual_seed(2)
    net, aux = Stack([dense_cell("ltc", 3, 8, threshold=0.3)], Readout(8, 3)), AuxiliaryLoss(3, 5)
    rule = build_rule("fptt", net, torch.optim.Adam(net.parameters(), lr=0.02), nn.functional.cross_entropy)
    x, y = 2 * torch.randn(5, 6, 3), torch.arange(6) % 3
    for _ in range(80):
        rule.start(5)
        for p in range(5):
            seen = rule.step(x[p], y, loss=aux.at(p))
            aux.update(seen.output, y, p)
        rule.finish()
    right = int((seen.output.argmax(-1) == y).sum())
    assert right >= 5 and aux.Q[0, 4, 0] > 0.5  # of six; on which side the last one comes down hangs on the machine's rounding
    restored = AuxiliaryLoss(3, 5)
    restored.load_state_dict(aux.state_dict())
    assert torch.equal(restored.Q, aux.Q)


@pytest.mark.parametrize(("options", "message"), [({"policy": "best"}, "policy"), ({"scaling": "big"}, "scaling")])
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        AuxiliaryLoss(3, 5, **options)
