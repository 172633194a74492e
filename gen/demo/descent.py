"""Going down a loss: AdamW, clipped gradients, a running average of the weights. Knows no model and no loss.

Whatever changes from step to step is a tensor on the parameters' device, so that a captured step follows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gen.demo import parallel


class Descent:
    """Trains `parameters`; `shares` gives prefixes of their names another share of the learning rate.

    `together` says that all processes train these; `adam` goes to AdamW.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        ema: float | None = None,
        shares: Mapping[str, float] | None = None,
        together: bool = True,
        **adam: Any,
    ) -> None:
        self.parameters = dict(parameters)
        self._all = list(self.parameters.values())
        self._device = self._all[0].device
        on_card = self._device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            self._groups(shares or {"": 1.0}),
            **adam,
            fused=on_card,
            capturable=on_card and parallel.world() == 1,
        )
        self._ema, self._together = ema, together
        self.average = {} if ema is None else {name: p.detach().clone() for name, p in self.parameters.items()}
        self._toward = torch.zeros((), device=self._device)

    def _groups(self, shares: Mapping[str, float]) -> list[dict[str, object]]:
        """One group a prefix, in its order; the first that fits a name takes it."""
        chosen: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in shares}
        for name, parameter in self.parameters.items():
            chosen[next(prefix for prefix in shares if name.startswith(prefix))].append(parameter)
        return [
            {"params": chosen[prefix], "share": share, "lr": torch.zeros((), device=self._device)}
            for prefix, share in shares.items()
        ]

    def prepare(self, learning_rate: float, step: int) -> None:
        """Set the rates of the step `step`, counted from 1."""
        for group in self.optimizer.param_groups:
            group["lr"].fill_(group["share"] * learning_rate)
        if self._ema is not None:
            self._toward.fill_(1 - min(self._ema, step / (step + 20)))

    def __call__(self, loss: Tensor) -> None:
        """One step down; reads nothing on the host."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if self._together:
            parallel.average_gradients(self._all)
        nn.utils.clip_grad_norm_(self._all, 1.0)
        self.optimizer.step()
        if self._ema is not None:
            with torch.no_grad():
                _move(list(self.average.values()), [p.detach() for p in self._all], self._toward)

    def keep_average(self) -> None:
        """Put the averaged weights into the parameters."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.average[name])


def _move(average: list[Tensor], parameters: list[Tensor], toward: Tensor) -> None:
    """In place average += toward * (parameters - average); `_foreach_lerp_` would want `toward` on the host."""
    change = torch._foreach_sub(parameters, average)
    torch._foreach_mul_(change, toward)
    torch._foreach_add_(average, change)


def one_cycle(progress: float, *, rise: float) -> float:
    """Share of the peak learning rate at `progress` in [0, 1]: up for `rise` of the time, then down to nothing."""
    if progress < rise:
        return 0.04 + 0.48 * (1 - math.cos(math.pi * progress / rise))
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - rise) / (1 - rise))))


def rise_and_fall(step: int, *, warmup: int, of: int) -> float:
    """Share of the peak learning rate: linear up in `warmup` steps, down with a cosine, never below a hundredth."""
    return min(1.0, step / warmup) * max(0.5 * (1 + math.cos(math.pi * min(1.0, step / of))), 0.01)
