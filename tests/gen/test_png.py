"""A picture carries its recipe: in the line that other tools read, and as JSON."""

import io
import json
from dataclasses import replace

import pytest
from PIL import Image

from gen.png import Recipe, encode_png
from gen.recipe_reader import read_recipe
from gen.request import ImageRequest, LoraUse, Variation


def _recipe(prompt: str = "a red house") -> Recipe:
    request = ImageRequest(prompt=prompt, seed=42, width=256, height=128, steps=12, guidance=3.5)
    return Recipe(request=request, model="m", weights_sha256="ab" * 32, dtype="float32", versions={"kiln": "1.2"})


def _picture() -> Image.Image:
    return Image.linear_gradient("L").convert("RGB").resize((256, 128))


def _rich_recipe() -> Recipe:
    request = replace(
        _recipe().request,
        negative="a tree, Steps: 3",
        cfg_scale=2.5,
        loras=(LoraUse(name="ink wash", strength=-0.8), LoraUse(name="b.2", strength=1)),
        variations=(Variation(seed=7, share=0.1), Variation(seed=2**32 - 1, share=0.4)),
    )
    return replace(_recipe(), request=request, lora_sha256={"ink wash": "cd" * 32, "b.2": "ef" * 32})


@pytest.mark.parametrize("recipe", [_recipe(), _rich_recipe()])
def test_the_recipe_reads_back(recipe: Recipe) -> None:
    assert read_recipe(encode_png(_picture(), recipe)) == recipe


def test_the_json_is_flat_and_complete() -> None:
    assert json.loads(_recipe().as_json()) == {
        "prompt": "a red house",
        "seed": 42,
        "width": 256,
        "height": 128,
        "size": "256x128",
        "steps": 12,
        "guidance": 3.5,
        "negative": "",
        "cfg_scale": 1.0,
        "loras": [],
        "variations": [],
        "model": "m",
        "weights_sha256": "ab" * 32,
        "lora_sha256": {},
        "dtype": "float32",
        "versions": {"kiln": "1.2"},
    }


def test_other_tools_find_the_parameters() -> None:
    with Image.open(io.BytesIO(encode_png(_picture(), _recipe()))) as picture:
        prompt, settings = picture.info["parameters"].split("\n")
    assert prompt == "a red house"
    assert settings == (
        "Steps: 12, Sampler: Euler, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 42, Size: 256x128, "
        "Model hash: ababababab, Model: m, Version: Kiln 1.2"
    )


def test_other_tools_find_what_is_avoided_worn_and_mixed_in() -> None:
    with Image.open(io.BytesIO(encode_png(_picture(), _rich_recipe()))) as picture:
        prompt, negative, settings = picture.info["parameters"].split("\n")
    assert prompt == "a red house <lora:ink wash:-0.8> <lora:b.2:1>"
    assert negative == "Negative prompt: a tree, Steps: 3"
    assert "CFG scale: 2.5, " in settings
    assert "Variations: 7:0.1 4294967295:0.4" in settings


def test_the_same_recipe_gives_the_same_bytes() -> None:
    assert encode_png(_picture(), _recipe()) == encode_png(_picture(), _recipe())


@pytest.mark.parametrize("prompt", ["夜晚的红色房子", "café 🐱", 'quotes " and \\ and {json}'])
def test_any_prompt_survives(prompt: str) -> None:
    png = encode_png(_picture(), _recipe(prompt))
    found = read_recipe(png)
    assert found is not None
    assert found.request.prompt == prompt
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.info["parameters"].split("\n")[0] == prompt


def test_the_pixels_are_lossless() -> None:
    with Image.open(io.BytesIO(encode_png(_picture(), _recipe()))) as picture:
        assert picture.tobytes() == _picture().tobytes()


def test_a_foreign_png_has_no_recipe() -> None:
    file = io.BytesIO()
    _picture().save(file, "PNG")
    assert read_recipe(file.getvalue()) is None


def test_the_json_is_one_object_with_sorted_keys() -> None:
    keys = list(json.loads(_recipe().as_json()))
    assert keys == sorted(keys)
