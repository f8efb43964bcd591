"""How the cells of the network are wired: who hears whom, recorded as it runs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from spyolo.detection.backbone import Backbone, scaled
from spyolo.detection.blocks import CSPBlock, StepRunner, Units, conv_cell
from spyolo.detection.neck import Neck
from spyolo.neurons import Cell


class Recorder(StepRunner):
    """Notes what goes into each cell and what comes out."""

    def __init__(self) -> None:
        super().__init__(None)
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}

    def __call__(self, name: str, cell: Cell, x: Tensor) -> Tensor:
        self.inputs[name] = x
        self.outputs[name] = super().__call__(name, cell, x)
        return self.outputs[name]


def test_csp_block_as_in_the_table_of_layers():
    # conv1 -> its second half -> conv2 -> conv3; [conv3, conv2] -> conv4; [conv1, conv4] -> pool
    run, block, x = Recorder(), CSPBlock(16, Units(kind="relu")), torch.randn(2, 16, 8, 8)
    pooled, feature = block(x, run, "b")
    whole = run.outputs["b.conv1"]
    assert torch.equal(run.inputs["b.conv1"], x)
    assert torch.equal(run.inputs["b.conv2"], whole[:, 8:])
    assert torch.equal(run.inputs["b.inner.0"], run.outputs["b.conv2"])
    assert torch.equal(run.inputs["b.conv4"], torch.cat([run.outputs["b.inner.0"], run.outputs["b.conv2"]], 1))
    assert torch.equal(feature, run.outputs["b.conv4"])
    assert torch.equal(pooled, max_pool2d(torch.cat([whole, feature], 1), 2))


def test_pooled_spikes_are_ors():
    pooled, feature = CSPBlock(16, Units())(3 * torch.randn(2, 16, 8, 8), run := Recorder(), "b")
    spikes = torch.cat([run.outputs["b.conv1"], feature], 1)
    any_of_four = spikes.view(2, 32, 4, 2, 4, 2).amax((3, 5))
    assert set(spikes.unique().tolist()) == {0, 1} and torch.equal(pooled, any_of_four)


def test_neck_as_in_the_table_of_layers():
    # P5 = reduce(stride 32); up = doubled current of P5; fine hears [up, stride 16], coarse hears P5
    run, neck = Recorder(), Neck((16, 32), Units(kind="relu"))
    fine, coarse = torch.randn(1, 16, 4, 4), torch.randn(1, 32, 2, 2)
    outputs = neck(fine, coarse, run)
    top = run.outputs["neck.reduce"]
    assert torch.equal(run.inputs["neck.reduce"], coarse)
    assert torch.equal(run.inputs["neck.up"], top) and torch.equal(run.inputs["neck.coarse"], top)
    assert torch.equal(run.inputs["neck.fine"], torch.cat([run.outputs["neck.up"], fine], 1))
    assert torch.equal(outputs[0], run.outputs["neck.fine"]) and torch.equal(outputs[1], run.outputs["neck.coarse"])


def test_backbone_hands_out_the_last_blocks_feature_map():
    run, backbone = Recorder(), Backbone(Units(kind="relu"), width=0.5)
    fine, coarse = backbone(backbone.encode(torch.rand(1, 3, 64, 64)), run)
    assert torch.equal(fine, run.outputs["backbone.block3.conv4"]) and torch.equal(coarse, run.outputs["backbone.conv3"])
    assert (fine.shape, coarse.shape) == ((1, 128, 4, 4), (1, 256, 2, 2))


def test_upsampling_acts_on_the_current():
    """Every neuron of a 2 x 2 patch gets the same current, but is a neuron of its own."""
    cell = conv_cell(4, 8, 1, Units(gate="conv"), upsample=True)
    x = torch.randn(1, 4, 3, 3)
    current = cell.synapse(x)
    assert current.shape == (1, 8, 6, 6) and torch.equal(current[..., ::2, ::2], current[..., 1::2, 1::2])
    _, state = cell(x)
    assert state.u.shape == (1, 8, 6, 6)
    assert not torch.equal(state.u[..., ::2, ::2], state.u[..., 1::2, 1::2])  # their gates see different neighbours


def test_a_gate_of_dense_layers_is_refused_at_once():
    with pytest.raises(ValueError, match="gate must be one of conv, depthwise, pointwise, static; got 'sum_linear'"):
        Units(gate="sum_linear").build(4)


@pytest.mark.parametrize("channels, width, expected", [(32, 1.0, 32), (64, 0.5, 32), (32, 0.25, 16), (64, 0.375, 24), (64, 1.25, 80)])
def test_widths_are_multiples_of_eight(channels: int, width: float, expected: int):
    assert scaled(channels, width) == expected
