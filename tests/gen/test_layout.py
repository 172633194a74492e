"""Kiln's names for weights are the published ones: proven by the fingerprints by which DiffSynth knows real files."""

import torch
from diffsynth.configs.model_configs import MODEL_CONFIGS
from diffsynth.core.loader.file import hash_state_dict_keys
from torch import Tensor, nn

from gen.demo.layout import clip_name, dit_name, vae_name
from gen.flux import SizedClip, SizedDiT, SizedT5, SizedVAEDecoder, SizedVAEEncoder
from gen.weights import PREFIX, FluxShape


def _fingerprint_of(example: str) -> set[str]:
    """DiffSynth's md5 over names and shapes of a published file, told apart by the model's class."""
    return {entry["model_hash"] for entry in MODEL_CONFIGS if entry["model_class"].endswith(example)}


def _state(kind: type[nn.Module]) -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(kind(FluxShape()).state_dict())


def test_a_full_size_dit_has_majicflus_names_and_shapes() -> None:
    published = {PREFIX + dit_name(key): tensor for key, tensor in _state(SizedDiT).items()}
    assert hash_state_dict_keys(published) == "3394f306c4cbf04334b712bf5aaed95f"  # majicflus_v134.safetensors
    assert hash_state_dict_keys(published) in _fingerprint_of("flux_dit.FluxDiT")


def test_a_full_size_dit_without_the_prefix_is_flux_dev() -> None:
    published = {dit_name(key): tensor for key, tensor in _state(SizedDiT).items()}
    assert hash_state_dict_keys(published) == "a29710fea6dddb0314663ee823598e50"  # flux1-dev.safetensors


def test_a_full_size_vae_has_the_published_names_and_shapes() -> None:
    published = {f"encoder.{vae_name(key, 'encoder')}": tensor for key, tensor in _state(SizedVAEEncoder).items()}
    published |= {f"decoder.{vae_name(key, 'decoder')}": tensor for key, tensor in _state(SizedVAEDecoder).items()}
    published = {
        key: t.reshape(*t.shape, 1, 1) if ".attn_1." in key and t.dim() == 2 else t for key, t in published.items()
    }
    assert hash_state_dict_keys(published) in _fingerprint_of("flux_vae.FluxVAEEncoder")


def test_a_full_size_clip_has_the_published_names_and_shapes() -> None:
    published = {clip_name(key): tensor for key, tensor in _state(SizedClip).items()}
    position = "text_model.embeddings.position_embedding.weight"
    published[position] = published[position][0]
    assert hash_state_dict_keys(published) in _fingerprint_of("flux_text_encoder_clip.FluxTextEncoderClip")


def test_a_full_size_t5_has_the_published_names_and_shapes() -> None:
    published = {key: tensor for key, tensor in _state(SizedT5).items() if key != "encoder.embed_tokens.weight"}
    assert hash_state_dict_keys(published) in _fingerprint_of("flux_text_encoder_t5.FluxTextEncoderT5")
