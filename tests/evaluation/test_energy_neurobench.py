"""The same counts as NeuroBench's synaptic operations, on a plain LIF network."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spyolo.evaluation.meter import EnergyMeter
from spyolo.neurons import Cell, LIFUnit

neurobench = pytest.importorskip("neurobench.benchmarks")


class PlainLIF(nn.Module):
    """A still picture for four steps through conv, pool, conv, linear; logits summed over the steps."""

    def __init__(self):
        super().__init__()
        self.first = Cell(nn.Conv2d(1, 4, 3, padding=1), LIFUnit(threshold=0.2))
        self.pool = nn.MaxPool2d(2)
        self.second = Cell(nn.Conv2d(4, 6, 3, stride=2, bias=False), LIFUnit(threshold=0.1))
        self.out = nn.Linear(6 * 3 * 3, 5)

    def forward(self, x):
        total, a, b = 0, None, None
        for _ in range(4):
            spikes, a = self.first(x, a)
            spikes, b = self.second(self.pool(spikes), b)
            total = total + self.out(spikes.flatten(1))
        return total


def test_synaptic_operations_equal_neurobench():
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    torch.manual_seed(0)
    net = PlainLIF().eval()
    with torch.no_grad():
        net.second.synapse.weight.abs_()
    pictures = torch.rand(6, 1, 16, 16) + 0.01  # no zeros: NeuroBench skips zeros of real operands too, see the second half
    pictures[:, :, :4] = 0
    data = TensorDataset(pictures, torch.zeros(6))
    with torch.no_grad():
        theirs = neurobench.Benchmark(TorchModel(net), DataLoader(data, 2), [], [], [[], [SynapticOperations]]).run(quiet=True)
        theirs = theirs["SynapticOperations"]
        with EnergyMeter(net) as meter:
            for (x, _) in DataLoader(data, 2):
                net(x)
    counts = meter.counts()
    total = counts.total()
    assert counts.pictures == 6
    assert total.acs > 1000
    assert total.acs / 6 == pytest.approx(theirs["Effective_ACs"], rel=1e-9)
    assert total.macs_nonzero / 6 == pytest.approx(theirs["Effective_MACs"], rel=1e-9)
    assert total.connections / 6 == pytest.approx(theirs["Dense"], rel=1e-9)  # padding left out, as there
