"""Training on several GPUs of one machine, one process each, started by torchrun; alone without it.

Thin words over torch.distributed: who am I, and keep us all the same. Knows no model.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start() -> torch.device:
    """Join the others, where there are any, and take this process's device."""
    place = int(os.environ.get("LOCAL_RANK", "0"))
    cuda = torch.cuda.is_available()
    if "RANK" in os.environ:
        dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=15))
    if cuda:
        torch.cuda.set_device(place)
    return torch.device("cuda", place) if cuda else torch.device("cpu")


def stop() -> None:
    """Leave the others."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait_for_all() -> None:
    """Go on when everyone is here."""
    if dist.is_initialized():
        dist.barrier()


def agree(value: int, device: torch.device) -> int:
    """The first process's value."""
    box = torch.tensor([value], device=device)
    if dist.is_initialized():
        dist.broadcast(box, 0)
    return int(box)


@torch.no_grad()
def copy_first(modules: Iterable[nn.Module]) -> None:
    """Give every process the first one's parameters."""
    if dist.is_initialized():
        for module in modules:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, 0)


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by the mean over all processes, in one exchange."""
    if not dist.is_initialized():
        return
    gradients: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world()
    sizes = [gradient.numel() for gradient in gradients]
    torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(torch.split(flat, sizes), gradients, strict=True)])
