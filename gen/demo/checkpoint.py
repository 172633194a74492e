"""A training run's state between two stretches: parameters, their averages and the optimizer's moments.

One safetensors file, so that nothing is ever unpickled. Knows no model.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gen.demo import parallel
from gen.demo.descent import Descent


def save_checkpoint(path: Path, descent: Descent, *, step: int, seconds: float) -> None:
    """Write everything that going on needs, whole or not at all; the first process does it for all."""
    if parallel.rank():
        return
    state: dict[str, Tensor] = {"step": torch.tensor(step), "seconds": torch.tensor(seconds)}
    for name, parameter in descent.parameters.items():
        state[f"now.{name}"] = parameter.detach().clone()
        state[f"average.{name}"] = descent.average[name]
        for moment, value in descent.optimizer.state.get(parameter, {}).items():
            state[f"{moment}.{name}"] = value.clone()
    save_file(state, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def load_checkpoint(path: Path, descent: Descent) -> tuple[int, float]:
    """Read a checkpoint back in place and return its step and the seconds so far; 0 where there is none."""
    if not path.exists():
        return 0, 0.0
    state = load_file(path)
    with torch.no_grad():
        for name, parameter in descent.parameters.items():
            parameter.copy_(state[f"now.{name}"])
            descent.average[name].copy_(state[f"average.{name}"])
            moments = ("step", "exp_avg", "exp_avg_sq")
            if f"exp_avg.{name}" in state:
                place = parameter.device
                descent.optimizer.state[parameter] = {m: state[f"{m}.{name}"].to(place) for m in moments}
    return int(state["step"]), float(state["seconds"])


def seconds_spent(path: Path) -> float:
    """The seconds that the checkpoint's stage took so far; 0 where there is none."""
    if not path.exists():
        return 0.0
    with safe_open(path, framework="pt") as file:
        return float(file.get_tensor("seconds"))
