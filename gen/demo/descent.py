"""Gradient descent on named parameters, with a running average of them, in a form that CUDA graphs can hold.

What changes from step to step (learning rates, the average's weight) lies in tensors on the device. Knows no model
and no loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gen.demo import parallel
from gen.demo.graphed import can_capture

Group = tuple[float, Mapping[str, nn.Parameter]]  # highest learning rate and the parameters that have it


class Descent:
    """AdamW over groups of parameters, gradients clipped to norm `clip`; `average` follows the parameters."""

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        betas: tuple[float, float],
        decay: float,
        ema: float,
        clip: float = 1.0,
        alone: bool = False,
    ) -> None:
        """`alone`: the other processes train something else; by default gradients are averaged over all."""
        self.parameters: dict[str, nn.Parameter] = {name: p for _, named in groups for name, p in named.items()}
        self.average: dict[str, Tensor] = {name: p.detach().clone() for name, p in self.parameters.items()}
        device = next(iter(self.parameters.values())).device
        self._peaks, self._ema, self._clip = [peak for peak, _ in groups], ema, clip
        self._alone = alone
        self._rates = [torch.zeros((), device=device) for _ in groups]
        self._follow = torch.zeros((), device=device)
        self.loss = torch.zeros((), device=device)  # smoothed over about fifty steps
        self._ease = torch.ones((), device=device)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(named.values()), "lr": rate}
                for (_, named), rate in zip(groups, self._rates, strict=True)
            ],
            betas=betas,
            weight_decay=decay,
            fused=device.type == "cuda",
            capturable=can_capture(device),
        )

    def aim(self, step: int, progress: float, *, warmup: int, first: int = 0) -> None:
        """Before step number `step`: a linear rise over `warmup` steps times half a cosine's fall over the stage.

        `first` is the number of steps that an earlier process did; the loss is smoothed from there.
        """
        rise = min(1.0, step / warmup)
        fall = max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
        for peak, rate in zip(self._peaks, self._rates, strict=True):
            rate.fill_(peak * rise * fall)
        self._follow.fill_(1 - min(self._ema, step / (step + 20)))
        self._ease.fill_(max(0.02, 1 / (step - first)))

    def descend(self, loss: Tensor) -> None:
        """One step down the gradient of `loss`."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        parameters = list(self.parameters.values())
        if not self._alone:
            parallel.average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, self._clip)
        self.optimizer.step()
        average = list(self.average.values())
        ahead = torch._foreach_sub([p.detach() for p in parameters], average)
        torch._foreach_mul_(ahead, self._follow)
        torch._foreach_add_(average, ahead)
        self.loss.lerp_(loss.detach(), self._ease)

    @torch.no_grad()
    def finish(self) -> None:
        """Leave the averages in the parameters' place, and no gradients."""
        self.optimizer.zero_grad(set_to_none=True)
        for name, parameter in self.parameters.items():
            parameter.copy_(self.average[name])
