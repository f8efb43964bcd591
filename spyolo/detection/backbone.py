"""The spiking CSPDarknet53-tiny backbone: one step, picture in, two feature maps of spikes out."""

from __future__ import annotations

from torch import Tensor, nn

from spyolo.detection.blocks import CSPBlock, StepRunner, Units, conv_cell


def scaled(channels: int, width: float) -> int:
    """Channels at a width multiplier, a multiple of 8 (16 at least, so that halves stay even)."""
    return max(16, round(channels * width / 8) * 8)


class Backbone(nn.Module):
    """conv 3x3/2, conv 3x3/2, three CSP blocks, conv 3x3.

    Args:
        units: what the hidden units are.
        width: multiplier on the channels 32, 64, 128, 256, 512.
        depth: inner cells of each CSP block beyond the first (1 is YOLOv4-tiny's).
        in_channels: 3 for pictures, 2 for event frames.

    Attributes:
        out_channels: channels of the maps at strides 16 and 32.
        strides: (16, 32).
    """

    def __init__(self, units: Units, width: float = 1.0, depth: int = 1, in_channels: int = 3) -> None:
        super().__init__()
        stem, base = scaled(32, width), scaled(64, width)
        self.conv1 = conv_cell(in_channels, stem, 3, units, stride=2)
        self.conv2 = conv_cell(stem, base, 3, units, stride=2)
        self.block1 = CSPBlock(base, units, depth)
        self.block2 = CSPBlock(2 * base, units, depth)
        self.block3 = CSPBlock(4 * base, units, depth)
        self.conv3 = conv_cell(8 * base, 8 * base, 3, units)
        self.out_channels = (4 * base, 8 * base)
        self.strides = (16, 32)

    def encode(self, images: Tensor) -> Tensor:
        """The first cell's synaptic current [B, C, H/2, W/2]: for a still picture it is the same at every step."""
        return self.conv1.synapse(images)

    def forward(self, current: Tensor, run: StepRunner) -> tuple[Tensor, Tensor]:
        """One step from the encoder's current -> spikes at strides 16 and 32."""
        x = run.from_current("backbone.conv1", self.conv1, current)
        x = run("backbone.conv2", self.conv2, x)
        x, _ = self.block1(x, run, "backbone.block1")
        x, _ = self.block2(x, run, "backbone.block2")
        x, feature = self.block3(x, run, "backbone.block3")
        return feature, run("backbone.conv3", self.conv3, x)
