"""A training run's state between two stretches: parameters, their averages and the optimizer's moments.

One safetensors file, so that nothing is ever unpickled. Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gen.demo import parallel


def save_checkpoint(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    """Write everything that going on needs, whole or not at all; the first process does it for all."""
    if parallel.rank():
        return
    state: dict[str, Tensor] = {"step": torch.tensor(step)}
    for name, parameter in parameters.items():
        state[f"now.{name}"] = parameter.detach().clone()
        state[f"average.{name}"] = average[name]
        for moment, value in optimizer.state.get(parameter, {}).items():
            state[f"{moment}.{name}"] = value.clone()
    save_file(state, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def load_checkpoint(
    path: Path,
    parameters: Mapping[str, nn.Parameter],
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> int:
    """Read a checkpoint back in place and return its step; 0 where there is none."""
    if not path.exists():
        return 0
    state = load_file(path)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[f"now.{name}"])
            average[name].copy_(state[f"average.{name}"])
            moments = ("step", "exp_avg", "exp_avg_sq")
            if f"exp_avg.{name}" in state:
                place = parameter.device
                optimizer.state[parameter] = {moment: state[f"{moment}.{name}"].to(place) for moment in moments}
    return int(state["step"])
