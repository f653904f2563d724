"""Several processes that train one model together, on one machine or many: data-parallel, by torch's DDP.

Whatever launches them (torchrun, ``accelerate launch``) tells each which one it is; accelerate joins them. Each takes
its share of a step's patches, and gradients and the sums inside the loss are added up over all, so that N processes
with a batch of B train as one process with a batch of N x B does. Nothing here is imported or done for one process.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from volseg.errors import TrainingError, UsageError
from volseg.machine import check_device
from volseg.network.unet import UNet

T = TypeVar("T")

#: How long a process waits for the others. They work on equal shares, so this is many times what one of them may be
#: late, and what is left of it is how long a run hangs whose lost machine nobody notices.
TIMEOUT = timedelta(hours=1)


class _Total(torch.autograd.Function):
    """Sum over processes.

    Each of N goes on to compute the same loss from it, and DDP divides the sum of their gradients by N. So that the
    loss counts once and not 1/N times, the gradient is multiplied by N; every process has the same one: none is sent.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, count: int) -> Tensor:
        ctx.count = count
        total = own.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.count, None


class Supervised(nn.Module):
    """`UNet.supervised` as what a module does when it is called: DDP sees a call alone."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCDHW: Tensor) -> list[Tensor]:
        """Logits of every supervised stage, full resolution first."""
        return self.network.supervised(x_BCDHW)


class Processes:
    """One process among those that train a model.

    Parameters
    ----------
    device
        Device that this one computes on.
    accelerator
        The `Accelerator` of accelerate, which has joined the others; None: there are no others.

    Attributes
    ----------
    index, count
        Number of this one, from 0, and of all.
    main
        Whether it writes what is written once, and speaks.
    first_here
        Whether it is the first one on its machine.
    """

    def __init__(self, device: torch.device, accelerator: Any = None) -> None:
        self.device, self._accelerator = device, accelerator
        self.index = accelerator.process_index if accelerator else 0
        self.count = accelerator.num_processes if accelerator else 1
        self.main = self.index == 0
        self.first_here = accelerator.local_process_index == 0 if accelerator else True

    def parallel(self, network: UNet) -> nn.Module:
        """The network's supervised outputs as a module whose gradients are the mean over all processes.

        It comes last: what doesn't need a gradient by then never will. On GPUs batch normalisation becomes that over
        the patches of all processes.
        """
        module = Supervised(network)
        if self._accelerator is None:
            return module
        # Of kernels of one voxel, whose few numbers are copied: every order of their axes is the same memory.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        if self.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        prepared: nn.Module = self._accelerator.prepare_model(module, device_placement=False)
        self._accelerator.free_memory()  # it would hold every fold's network to the end
        return prepared

    def total(self, own: Tensor) -> Tensor:
        """Sum over processes of tensors of one shape, for a loss that each computes from it."""
        if self.count == 1:
            return own
        total: Tensor = _Total.apply(own, self.count)  # type: ignore[no-untyped-call]
        return total

    def gathered(self, own: T) -> list[T]:
        """What each process gave, in their order."""
        if self.count == 1:
            return [own]
        from accelerate.utils import gather_object

        every: list[T] = gather_object([own])
        return every

    def from_main(self, own: T) -> T:
        """What the main process gave."""
        return self.gathered(own)[0]

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Those of `items` that are this process's."""
        return items[self.index :: self.count]

    def joined(self, own: Sequence[T]) -> list[T]:
        """One result for each item, in the items' order, from those that each process has of its share."""
        parts = self.gathered(own)
        return [parts[number % self.count][number // self.count] for number in range(sum(map(len, parts)))]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around what processes do without each other: none goes on before all are through.

        Raises
        ------
        TrainingError
            Another process failed. Without it, all would wait for that one.
        """
        problem: Exception | None = None
        try:
            yield
        except Exception as error:
            problem = error
        told = self.gathered(None if problem is None else f"{type(problem).__name__}: {problem}")
        if problem is not None:
            raise problem
        for index, text in enumerate(told):
            if text is not None:
                raise TrainingError(f"process {index} of {self.count} failed: {text}")


#: The one process of a training that isn't launched as several.
ALONE = Processes(torch.device("cpu"))


@contextmanager
def launched(device: str) -> Iterator[Processes]:
    """The process, joined with the others that torchrun or ``accelerate launch`` started with it, if it was.

    Parameters
    ----------
    device
        Name of the device: ``cpu``, ``cuda`` or ``mps``. Of several processes each takes a GPU of its own.

    Raises
    ------
    UsageError
        The device isn't there, accelerate isn't installed, or the processes can't be joined.
    """
    check_device(device)
    if not torch.distributed.is_torchelastic_launched():
        yield Processes(torch.device(device))
        return
    if device == "mps":
        raise UsageError("--device mps: several processes train on cpu or cuda alone")
    if importlib.util.find_spec("accelerate") is None:
        raise UsageError("several processes are joined by accelerate, which isn't installed: pip install volseg[train]")
    from accelerate import Accelerator, InitProcessGroupKwargs

    try:
        # The recipe says what precision is, and not accelerate's configuration file.
        accelerator = Accelerator(
            cpu=device == "cpu", mixed_precision="no", kwargs_handlers=[InitProcessGroupKwargs(timeout=TIMEOUT)]
        )
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"the processes can't be joined, one {device} each: {error}") from error
    yield Processes(accelerator.device, accelerator)
    # Not after an error: the others may be gone, and this would wait for them.
    accelerator.end_training()
