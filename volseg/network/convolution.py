"""A convolution that stays fast for one small window at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from volseg.config import Triple

#: torch gives a batch of 1 to oneDNN only where channels x D x H are more than this (`use_mkldnn` in its
#: Convolution.cpp); its own loop takes up to ten times as long.
SMALL = 20_480


class Convolution(nn.Conv3d):
    """`torch.nn.Conv3d` of (B, C, D, H, W), padded by half of its odd kernel: the same numbers, to rounding.

    Parameters
    ----------
    into, out
        Numbers of channels.
    kernel, stride
        Sizes, one number an axis.
    bias
        Whether there is a bias.
    """

    def __init__(self, into: int, out: int, kernel: Triple, stride: Triple, *, bias: bool) -> None:
        super().__init__(into, out, kernel, stride, (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2), bias=bias)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Convolve."""
        if not self._slow(input):
            return super().forward(input)
        if torch.is_grad_enabled():
            return self._halves(input)
        padding = [size // 2 for size in self.kernel_size]
        result: Tensor = torch.mkldnn_convolution(input, self.weight, self.bias, padding, self.stride, [1, 1, 1], 1)
        return result

    def _slow(self, x: Tensor) -> bool:
        """Whether torch would take its own loop."""
        single = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return single and len(x) == 1 and max(self.kernel_size) > 1 and x[0, ..., 0].numel() <= SMALL

    def _halves(self, x: Tensor) -> Tensor:
        """Both halves along D as a batch of two, each with what it sees of the other. Autograd knows all of it."""
        kernel, stride, margin = self.kernel_size[0], self.stride[0], self.kernel_size[0] // 2
        size = (x.shape[2] + 2 * margin - kernel) // stride + 1
        half = -(-size // 2)
        length, start = stride * (half - 1) + kernel, stride * half
        # Of an odd size the second half has one layer more, whose result is cut off.
        padded = functional.pad(x, (0, 0, 0, 0, margin, start + length - x.shape[2] - margin))
        both = torch.cat([padded.narrow(2, 0, length), padded.narrow(2, start, length)])
        both = both.contiguous(memory_format=torch.channels_last_3d)
        padding = (0, self.kernel_size[1] // 2, self.kernel_size[2] // 2)
        halves = functional.conv3d(both, self.weight, self.bias, self.stride, padding)
        return torch.cat([halves[:1], halves[1:].narrow(2, 0, size - half)], 2)
