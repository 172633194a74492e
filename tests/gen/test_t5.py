"""T5 as functions computes what transformers' module computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gen.float8 import exact_linear
from gen.flux import SizedT5, build_pipeline
from gen.t5 import position_bias, t5_layer
from gen.weights import DEMO_WEIGHTS, find_weights
from tests.gen.engine_models import CPU, DemoEngine


@pytest.fixture(scope="module")
def t5() -> Any:
    module = SizedT5(find_weights(DEMO_WEIGHTS).shape).eval().requires_grad_(False)
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def test_the_position_bias_is_transformers_near_and_far(t5: Any) -> None:
    attention = t5.encoder.block[0].layer[0].SelfAttention
    wanted = attention.compute_bias(300, 300)
    assert torch.equal(position_bias(attention.relative_attention_bias.weight, 300), wanted)


def test_all_layers_together_are_transformers(t5: Any) -> None:
    ids = torch.randint(0, 300, (2, 150))
    layers = list(t5.encoder.block)
    layer = t5_layer(layers[0].layer[0].SelfAttention.n_heads, exact_linear)
    x = t5.shared(ids)
    bias = position_bias(layers[0].layer[0].SelfAttention.relative_attention_bias.weight, 150)
    for module in layers:
        x = layer(dict(module.named_parameters()), x, bias)
    wanted = t5(ids)
    assert torch.allclose(t5.encoder.final_layer_norm(x), wanted, atol=1e-4 * float(wanted.abs().max()))


def test_streamed_through_slots_it_encodes_what_the_pipelines_own_encodes() -> None:
    engine = DemoEngine()
    plain = build_pipeline(engine.weights, device=CPU, dtype=torch.float32)
    ids = torch.randint(0, 300, (1, 64))
    with torch.no_grad():
        wanted, found = plain.text_encoder_2(ids), engine.pipe.text_encoder_2(ids)
    assert torch.allclose(found, wanted, atol=1e-4 * float(wanted.abs().max()))
