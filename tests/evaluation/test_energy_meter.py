"""The meter's counts against counts by hand on networks small enough to count."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spyolo.detection import build_detector
from spyolo.evaluation.meter import EnergyMeter, dense_counts
from spyolo.evaluation.sparsity import channel_extremes, firing_rate, layer_sparsity, sparsity_summary
from spyolo.evaluation.synapses import fan_out, is_binary, side_fan_out
from spyolo.evaluation.tallies import Tally
from spyolo.neurons import ALIFUnit, Cell, LIFUnit, dense_ltc

MAIN, GATES, HEADS, ENCODER, TWIN, LITE = 3_387_744_256, 5_183_373_312, 19_468_800, 37_380_096, 3_407_213_056, 3_462_893_824


@pytest.fixture(autouse=True)
def nothing_is_compiled():
    """Compiling a kernel takes longer than all of these tests."""
    with torch.compiler.set_stance("force_eager"):
        yield


def metered(model, *inputs):
    """Counts of one plain call."""
    with torch.no_grad(), EnergyMeter(model) as meter:
        model(*inputs)
    return meter.counts()


def run_steps(cell, x, steps):
    state = None
    for _ in range(steps):
        _, state = cell(x, state)


def test_fan_out_along_one_side():
    assert side_fan_out(4, kernel=3, stride=1, dilation=1, padding=(1, 1)).tolist() == [2, 3, 3, 2]
    assert side_fan_out(4, kernel=3, stride=2, dilation=1, padding=(1, 1)).tolist() == [1, 2, 1, 1]  # outputs see (-, 0, 1) and (1, 2, 3)
    assert side_fan_out(4, kernel=2, stride=2, dilation=1, padding=(0, 0)).tolist() == [1, 1, 1, 1]
    assert side_fan_out(5, kernel=2, stride=2, dilation=1, padding=(0, 0)).tolist() == [1, 1, 1, 1, 0]  # nobody sees the last place


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 3, "padding": 1, "stride": 2},
        {"kernel_size": (3, 1), "padding": (2, 0), "dilation": (2, 1), "groups": 2},
        {"kernel_size": 4, "padding": "same"},
        {"kernel_size": 3, "padding": "valid", "stride": 3},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
        {"kernel_size": 3, "padding": 1, "padding_mode": "circular", "groups": 4},
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_accumulates_of_a_convolution_equal_its_sum_over_ones(options):
    """A convolution whose weights are all one, run on spikes, adds up exactly one for every connection that carries a spike."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, bias=False, **options)
    nn.init.ones_(conv.weight)
    spikes = (torch.rand(3, 4, 7, 9) < 0.3).float()
    total = metered(conv, spikes).total()
    everything = metered(conv, torch.full_like(spikes, 2.0)).total()
    assert total.acs == int(conv(spikes).sum()) > 0
    assert total.macs == total.macs_nonzero == 0
    assert total.connections == everything.macs_nonzero == int(conv(torch.ones_like(spikes)).sum())
    assert total.dense_macs == everything.macs == conv(spikes).numel() * conv.weight[0].numel()


def test_convolution_by_hand():
    """One spike in the corner of 4 x 4, one in the middle: 3 x 3 kernels with padding reach 4 and 9 outputs, in 5 output channels."""
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 0, 0] = x[0, 0, 1, 1] = 1
    total = metered(nn.Conv2d(1, 5, 3, padding=1), x).total()
    assert (total.acs, total.dense_macs, total.connections) == (5 * (4 + 9), 5 * 16 * 9, 5 * 100)
    assert (total.nonzero, total.values, total.binary_values) == (2, 16, 16)


def test_linear_layer_by_hand():
    x = torch.tensor([[1.0, 0, 1, 0], [0, 0, 1, 0]])
    total = metered(nn.Linear(4, 3), x).total()
    assert (total.acs, total.macs, total.dense_macs, total.rows) == (9, 0, 24, 2)


def test_one_value_that_is_not_binary_makes_every_product_a_mac():
    """Measured, not assumed: half a spike costs a multiplier, and the dense count is charged; the zero-skipping count stands beside it."""
    x = torch.tensor([[1.0, 0, 0.5, 0]])
    total = metered(nn.Linear(4, 3), x).total()
    assert (total.acs, total.macs, total.macs_nonzero, total.binary_values) == (0, 12, 6, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_binary_means_zero_or_one_and_nothing_else(dtype):
    one_ulp_off = torch.nextafter(torch.tensor(1.0, dtype=dtype), torch.tensor(2.0, dtype=dtype))
    tiny = torch.tensor(torch.finfo(dtype).tiny, dtype=dtype)
    for odd in (one_ulp_off, tiny, -1.0, 2.0, float("nan"), float("inf")):
        assert is_binary(torch.tensor([[0, 1, odd], [0, 1, -0.0]], dtype=dtype)).tolist() == [False, True], odd


@pytest.mark.parametrize("side", [8, 400])  # looked at whole, and in pieces
def test_a_picture_costs_the_same_whatever_lies_beside_it(side):
    torch.manual_seed(0)
    noise, black, marks = torch.rand(1, 2, side, side), torch.zeros(1, 2, side, side), (torch.rand(1, 2, side, side) < 0.1).float()
    conv = nn.Conv2d(2, 3, 3, padding=1)
    together = metered(conv, torch.cat([noise, black, marks])).total()
    assert together == sum((metered(conv, x).total() for x in (noise, black, marks)), Tally())
    assert together.macs == metered(conv, noise).total().dense_macs > 0 and together.acs == metered(conv, marks).total().acs > 0


def test_pooled_spikes_are_denser_than_the_layer_that_fired_them():
    """One spike in each 2 x 2 window: the layer fires at 1/4, its pooled map is full; energy must be read off the operand."""
    spikes = torch.zeros(1, 1, 4, 4)
    spikes[..., ::2, ::2] = 1
    net = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(1, 2, 1))
    (layer,) = metered(net, spikes).layers
    assert layer_sparsity(layer)["operand_density"] == [1.0]
    assert layer.total().acs == 2 * 4


def spiking_chain(threshold=0.5):
    """Two cells and a head: Linear 3 -> 4 -> 2 -> 1. All weights 1, so every neuron fires at once."""
    sizes = ((3, 4), (4, 2))
    cells = nn.ModuleList(Cell(nn.Linear(*size, bias=False), LIFUnit(0.5, threshold)) for size in sizes)

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells, self.head = cells, nn.Linear(2, 1, bias=False)

        def encode(self, x):
            return self.cells[0].synapse(x)

        def step(self, current, state):
            first, second = state or (self.cells[0].unit.initial_state(current), None)
            a, first = self.cells[0].unit(current, first)
            b, second = self.cells[1](a, second)
            return self.head(b), (first, second)

    net = Chain()
    for p in net.parameters():
        nn.init.ones_(p)
    return net


def show(net, x, steps):
    current, state = net.encode(x), None
    for _ in range(steps):
        _, state = net.step(current, state)


def test_steps_of_a_still_picture_with_the_encoder_run_once():
    net = spiking_chain()
    with torch.no_grad(), EnergyMeter(net) as meter:
        for batch in (torch.full((2, 3), 0.9), torch.full((1, 3), 0.9)):  # two batches, three pictures
            show(net, batch, steps=3)
    counts = meter.counts()
    by_name = {layer.name: layer for layer in counts.layers}
    assert counts.pictures == 3
    assert counts.timesteps == 3
    assert [t.macs for t in by_name["cells.0.synapse"].steps] == [3 * 12]  # real numbers, at the first step only
    assert [t.acs for t in by_name["cells.1.synapse"].steps] == [3 * 8] * 3  # all four inputs spike
    assert [t.acs for t in by_name["head"].steps] == [3 * 2] * 3
    assert [t.neurons for t in by_name["cells.0.unit"].steps] == [12] * 3
    assert list(by_name) == ["cells.0.synapse", "cells.0.unit", "cells.1.synapse", "cells.1.unit", "head"]


def test_encoder_that_runs_at_every_step_is_counted_at_every_step():
    net = spiking_chain()
    with torch.no_grad(), EnergyMeter(net) as meter:
        for _ in range(2):
            state = None
            for _ in range(3):
                _, state = net.step(net.encode(torch.full((1, 3), 0.9)), state)
    counts = meter.counts()
    assert [t.macs for t in counts.layers[0].steps] == [24, 24, 24]
    assert counts.pictures == 2


def test_carried_state_goes_on_counting_steps_of_one_sequence():
    cell = Cell(nn.Linear(3, 4), LIFUnit())
    with torch.no_grad(), EnergyMeter(cell) as meter:
        run_steps(cell, torch.rand(2, 3), 5)
    counts = meter.counts()
    assert (counts.pictures, counts.timesteps) == (2, 5)
    assert counts.per_frame(10).pictures == 10
    assert [t.rows for t in counts.layers[0].steps] == [2] * 5


def test_the_meter_can_stop_after_some_pictures():
    net = spiking_chain()
    with torch.no_grad(), EnergyMeter(net, pictures=3) as meter:
        for _ in range(4):
            show(net, torch.full((2, 3), 0.9), steps=2)
    counts = meter.counts()
    assert counts.pictures == 4  # the batch that reaches three is counted whole
    assert counts.layers[0].total().macs == 4 * 12
    assert counts.layers[1].total().neurons == 2 * 4 * 4


def test_networks_without_units_count_pictures_at_their_first_layer():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad(), EnergyMeter(net, pictures=5) as meter:
        for _ in range(4):
            net(torch.rand(2, 3))
    counts = meter.counts()
    assert (counts.pictures, counts.timesteps) == (6, 1)
    assert counts.total().dense_macs == 6 * (12 + 8)


def test_silent_and_saturated_channels():
    """Neuron 0 never reaches its threshold, neuron 1 always does, neuron 2 does for one of two pictures."""
    cell = Cell(nn.Linear(1, 3, bias=False), LIFUnit(0.0, threshold=1.0))
    with torch.no_grad():
        cell.synapse.weight.copy_(torch.tensor([[0.1], [10.0], [1.0]]))
    with torch.no_grad(), EnergyMeter(cell) as meter:
        for x in (0.5, 2.0):
            run_steps(cell, torch.tensor([[x]]), 2)
    counts = meter.counts()
    unit = counts.layers[1]
    assert channel_extremes(unit) == (1, 1, 3)
    assert unit.channel_spikes.sum(0)[0] == 0
    assert sparsity_summary(counts)["silent_channels"] == 1
    assert firing_rate(counts) == pytest.approx(unit.total().spikes / 12)
    assert layer_sparsity(unit)["firing_rate"][0] == pytest.approx((0 + 2 + 1) / 6)


def test_gates_and_adaptations_of_ltc_neurons():
    cell = dense_ltc(3, 4, recurrent=True, gate="concat_linear", adaptive=True)
    with torch.no_grad(), EnergyMeter(cell) as meter:
        run_steps(cell, torch.rand(2, 3), 3)
    counts = meter.counts()
    unit = counts.total("unit")
    assert (unit.neurons, unit.gate_updates, unit.adaptation_updates) == (24, 48, 24)  # two gates a neuron: membrane and adaptation
    assert counts.total("gate").macs == 3 * 2 * 2 * (8 * 4)
    recurrent = next(layer for layer in counts.layers if layer.name == "recurrent")
    assert (recurrent.part, recurrent.total().macs) == ("synapse", 0)  # it reads spikes
    assert [t.rows for t in recurrent.steps] == [2, 2, 2]


def test_a_constant_gate_costs_nothing_and_fixed_decays_have_none():
    static = build_detector("spyv4_lite", 2, width=0.25, gate="static").eval()
    counts = metered(static, torch.rand(1, 3, 32, 32))
    assert counts.total("unit").gate_updates == counts.total("gate").dense_macs == 0
    alif = Cell(nn.Linear(3, 4), ALIFUnit())
    with torch.no_grad(), EnergyMeter(alif) as meter:
        run_steps(alif, torch.rand(2, 3), 2)
    unit = meter.counts().total("unit")
    assert (unit.neurons, unit.gate_updates, unit.adaptation_updates) == (16, 0, 16)


def test_the_meter_leaves_the_model_as_it_was():
    cell = Cell(nn.Linear(3, 4), LIFUnit())
    torch.manual_seed(0)
    x = torch.rand(2, 3)
    before, _ = cell(x)
    with EnergyMeter(cell):
        during, _ = cell(x)
    assert torch.equal(before, during)
    assert "initial_state" not in vars(cell.unit)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in cell.modules())


def test_what_cannot_be_counted_is_named():
    net = nn.Sequential(nn.ConvTranspose2d(2, 2, 2), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1))
    assert metered(net, torch.rand(1, 2, 4, 4)).uncounted == ("0",)
    assert metered(build_detector("spyv4_lite", 2, width=0.25).eval(), torch.rand(1, 3, 32, 32)).uncounted == ()


def test_leaky_readout_updates_after_the_first_step():
    detector = build_detector("spyv4_lite", 2, width=0.25).eval()
    with torch.no_grad(), EnergyMeter(detector) as meter:
        list(detector.run(torch.rand(1, 3, 64, 64), 3))
    logits = 3 * 7 * (4 * 4 + 2 * 2)  # three anchors, five and two classes, two scales
    assert meter.counts().total("readout").readout_updates == 2 * logits


@pytest.mark.parametrize(
    ("name", "synapses", "gates"), [("spyv4", MAIN + HEADS, GATES), ("spyv4_lite", TWIN, LITE - TWIN), ("yolov4_tiny", TWIN, 0)]
)
def test_dense_macs_of_the_detectors_agree_with_torch_and_the_pinned_figures(name, synapses, gates):
    detector, picture = build_detector(name).eval(), torch.zeros(1, 3, 416, 416)
    counts = dense_counts(detector, picture)
    assert counts.total("synapse").dense_macs == synapses
    assert counts.total("gate").dense_macs == gates
    assert counts.layers[0].total().dense_macs == ENCODER
    assert counts.total("unit").neurons + counts.total("unit").activations == 6_186_752
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        detector.to("meta")(picture.to("meta"))
    assert flops.get_total_flops() == 2 * (synapses + gates)


def test_accumulates_of_a_whole_detector_against_ones_convolutions():
    """Every operand that a narrow detector's layers saw, counted again by running a layer of ones on it."""
    torch.manual_seed(0)
    detector = build_detector("spyv4_lite", 3, width=0.25).eval()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, -1, 2)  # so that something fires
    seen = {}
    hooks = [
        module.register_forward_hook(lambda m, args, out, name=name: seen.setdefault(name, []).append(args[0].clone()))
        for name, module in detector.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad(), EnergyMeter(detector) as meter:
        list(detector.run(torch.rand(2, 3, 64, 64), 3))
    for hook in hooks:
        hook.remove()
    counts = meter.counts()
    assert 0.01 < firing_rate(counts) < 0.9
    for layer in counts.layers:
        if layer.part not in ("synapse", "gate"):
            continue
        conv = detector.get_submodule(layer.name)
        conv.bias = None
        nn.init.ones_(conv.weight)
        for tally, x in zip(layer.steps, seen[layer.name], strict=True):
            binary = bool(((x == 0) | (x == 1)).all())
            with torch.no_grad():
                reached = int(conv.double()((x != 0).double()).sum())
            assert (tally.acs, tally.macs_nonzero) == ((reached, 0) if binary else (0, reached)), layer.name
            assert tally.nonzero == int(x.count_nonzero())


def test_fan_out_of_a_linear_layer_has_no_places():
    fan = fan_out(nn.Linear(3, 5), torch.Size([2, 3]), torch.device("cpu"))
    assert (fan.places.dim(), fan.total, fan.outputs) == (0, 1, 5)
