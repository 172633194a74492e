"""A picture carries its recipe: in the line that other tools read, and as JSON."""

import io
import json

import pytest
from PIL import Image

from gen.png import Recipe, encode_png, read_recipe
from gen.request import ImageRequest


def _recipe(prompt: str = "a red house") -> Recipe:
    request = ImageRequest(prompt=prompt, seed=42, width=256, height=128, steps=12, guidance=3.5)
    return Recipe(request=request, model="m", weights_sha256="ab" * 32, dtype="float32", versions={"kiln": "1.2"})


def _picture() -> Image.Image:
    return Image.linear_gradient("L").convert("RGB").resize((256, 128))


def test_the_recipe_reads_back() -> None:
    found = read_recipe(encode_png(_picture(), _recipe()))
    assert found == {
        "prompt": "a red house",
        "seed": 42,
        "width": 256,
        "height": 128,
        "size": "256x128",
        "steps": 12,
        "guidance": 3.5,
        "model": "m",
        "weights_sha256": "ab" * 32,
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


def test_the_same_recipe_gives_the_same_bytes() -> None:
    assert encode_png(_picture(), _recipe()) == encode_png(_picture(), _recipe())


@pytest.mark.parametrize("prompt", ["夜晚的红色房子", "café 🐱", 'quotes " and \\ and {json}'])
def test_any_prompt_survives(prompt: str) -> None:
    png = encode_png(_picture(), _recipe(prompt))
    found = read_recipe(png)
    assert found is not None
    assert found["prompt"] == prompt
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
