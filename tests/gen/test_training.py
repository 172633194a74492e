"""The training code at toy size, on the CPU: what it learns, what a checkpoint keeps, what files it leaves."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from gen.demo import dataset, tokenizers
from gen.demo.classifier import Classifier
from gen.demo.classifier_training import ClassifierConfig, accuracy, train_classifier
from gen.demo.descent import Descent
from gen.demo.dit_training import DiTConfig, Examples, distil, train_dit
from gen.demo.layout import save_weights
from gen.demo.model import Model, pooled
from gen.demo.report import Log, contact_sheet, plot_losses
from gen.demo.scenes import ATTRIBUTES
from gen.demo.text_training import Captions, TextConfig, train_text
from gen.demo.vae_training import VAEConfig, train_vae
from gen.flux import SizedClip, SizedDiT, SizedT5, SizedVAEDecoder, SizedVAEEncoder, build_velocity, load_generator
from gen.request import ModelProfile
from gen.weights import FluxShape, find_weights

SHAPE = FluxShape(
    dim=32,
    heads=2,
    joint_blocks=1,
    single_blocks=1,
    rope_axes=(4, 6, 6),
    clip_dim=32,
    clip_heads=2,
    clip_layers=2,
    clip_hidden=32,
    clip_vocabulary=640,
    t5_dim=32,
    t5_heads=2,
    t5_head_dim=16,
    t5_layers=1,
    t5_hidden=32,
    t5_vocabulary=400,
    t5_tokens=24,
    vae_channels=(32, 32, 32, 32),
)
PROFILE = ModelProfile(
    name="toy", width=128, height=128, steps=2, guidance=2.0, side_min=128, side_max=256, pixels_max=65536
)
CONFIG = DiTConfig(steps=4, distil_steps=2, tokens=300, checkpoint=2, warmup=1, compile=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both tokenizers, trained on few captions."""
    made: Path = tmp_path_factory.mktemp("toy")
    captions = dataset.sample_captions(400, seed=1)
    tokenizers.train_clip_tokenizer(captions, made / "tokenizer", vocabulary=SHAPE.clip_vocabulary)
    tokenizers.train_t5_tokenizer(captions, made / "tokenizer_2", vocabulary=SHAPE.t5_vocabulary, tokens=24)
    return made


@pytest.fixture(scope="module")
def shard(folder: Path) -> dataset.Shard:
    tasks = dataset.plan_tasks({(128, 128): 128}, held_out=False, tokenizers=folder, t5_tokens=24)
    (made,) = dataset.render(tasks)
    return made


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "report" / "log.jsonl")


def _model() -> Model:
    torch.manual_seed(0)
    return Model(dit=SizedDiT(SHAPE), clip=SizedClip(SHAPE), t5=SizedT5(SHAPE), velocity=build_velocity())


def _examples(shard: dataset.Shard) -> dict[tuple[int, int], Examples]:
    latents = torch.randn(len(shard.pixels), 16, 16, 16, generator=torch.Generator().manual_seed(1)).half()
    told = {name: getattr(shard, name) for name in ("clip_ids", "t5_ids", "labels", "stated")}
    return {(128, 128): Examples(latents=latents, **told)}


def test_a_shard_holds_pictures_and_their_mirror_images(shard: dataset.Shard) -> None:
    assert shard.pixels.shape == (128, 128, 128, 3)
    assert torch.equal(shard.pixels[0], shard.pixels[1].flip(1))
    place = list(ATTRIBUTES).index("place")
    others = [column for column in range(len(ATTRIBUTES)) if column != place]
    assert torch.equal(shard.labels[0, others], shard.labels[1, others])
    sides = {(0, 2), (2, 0), (1, 1)}
    pairs = zip(shard.labels[::2, place].tolist(), shard.labels[1::2, place].tolist(), strict=True)
    assert set(pairs) <= sides


def test_every_caption_ends_within_its_tokens(shard: dataset.Shard) -> None:
    assert (shard.clip_ids[..., -1] == SHAPE.clip_vocabulary - 1).all()  # CLIP's end mark, the highest id, also pads
    assert int(shard.t5_ids.max()) < SHAPE.t5_vocabulary
    assert shard.stated.shape == (128, len(dataset.LANGUAGES), len(ATTRIBUTES))


def test_the_vae_learns_and_its_latents_have_unit_variance(shard: dataset.Shard, log: Log) -> None:
    torch.manual_seed(0)
    encoder, decoder = SizedVAEEncoder(SHAPE), SizedVAEDecoder(SHAPE)
    config = VAEConfig(steps=4, crop=32, crop_batch=4, full_batch=1)
    train_vae(encoder, decoder, {(128, 128): shard.pixels[:8]}, config=config, log=log)
    assert float(log.lines()[-1]["error"]) < 1.0
    with torch.no_grad():
        latents = encoder(shard.pixels[:8].permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert abs(float(latents.std()) - 1) < 0.1


def test_the_vae_trains_for_its_minutes(shard: dataset.Shard, log: Log) -> None:
    encoder, decoder = SizedVAEEncoder(SHAPE), SizedVAEDecoder(SHAPE)
    config = VAEConfig(minutes=1e-9, crop=32, crop_batch=4, full_batch=1)
    train_vae(encoder, decoder, {(128, 128): shard.pixels[:4]}, config=config, log=log)
    assert log.lines()[-1]["step"] == 1


def test_the_pooled_text_is_diffsynths(shard: dataset.Shard) -> None:
    clip, ids = _model().clip, shard.clip_ids[:8, 0].long()
    torch.nn.init.normal_(clip.position_embeds)
    assert torch.equal(pooled(clip, ids), clip(ids)[0])


def test_a_step_down_obeys_the_rate_of_its_part_and_the_average_follows() -> None:
    parameters = {name: torch.nn.Parameter(torch.zeros(3)) for name in ("dit.a", "clip.b")}
    descent = Descent(parameters, ema=0.75, shares={"dit.": 1.0, "": 0.5}, weight_decay=0.0)
    descent.prepare(0.1, step=1000)
    descent(torch.stack(list(parameters.values())).sum())
    now = [p[0].item() for p in parameters.values()]
    assert now == pytest.approx([-0.1, -0.05], rel=1e-3)
    assert [float(a[0]) for a in descent.average.values()] == pytest.approx([n / 4 for n in now])


def test_the_text_encoders_learn_to_read_captions(shard: dataset.Shard, log: Log) -> None:
    model = _model()
    captions = Captions(clip_ids=shard.clip_ids, t5_ids=shard.t5_ids, labels=shard.labels, stated=shard.stated)
    for steps in (1, 100):
        config = TextConfig(steps=steps, batch=48, learning_rate=3e-3)
        train_text(model.clip, model.t5, [captions], config=config, log=log)
    first, last = (float(line["read_right"]) for line in log.lines())
    assert first < 0.3
    assert last > 0.4


def test_the_classifier_learns_its_pictures(shard: dataset.Shard, log: Log) -> None:
    torch.manual_seed(0)
    classifier = Classifier()
    labelled = {(128, 128): (shard.pixels, shard.labels)}
    before = accuracy(classifier, list(labelled.values()))["overall"]
    train_classifier(classifier, labelled, config=ClassifierConfig(steps=12, batch=16), log=log)
    assert accuracy(classifier, list(labelled.values()))["overall"] > before + 0.05


def test_going_on_from_a_checkpoint_equals_never_having_stopped(shard: dataset.Shard, log: Log, tmp_path: Path) -> None:
    examples = _examples(shard)
    straight, stopped, resumed = _model(), _model(), _model()
    for name in ("straight", "stopped"):
        (tmp_path / name).mkdir()
    train_dit(straight, examples, config=CONFIG, folder=tmp_path / "straight", log=log)
    with pytest.raises(KeyboardInterrupt):
        train_dit(_interrupted(stopped, after=3), examples, config=CONFIG, folder=tmp_path / "stopped", log=log)
    train_dit(resumed, examples, config=CONFIG, folder=tmp_path / "stopped", log=log)
    for (name, one), other in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def _interrupted(model: Model, *, after: int) -> Model:
    """A model whose forward is interrupted after so many calls."""
    calls = iter(range(after))

    def count(*_: object) -> None:
        if next(calls, None) is None:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(count)
    return model


def test_the_pace_decides_the_steps_where_time_is_given(
    shard: dataset.Shard, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gen.demo.dit_training.REFIT", 1)
    train_dit(_model(), _examples(shard), config=replace(CONFIG, minutes=1e-9), folder=tmp_path, log=log)
    assert log.lines()[-1]["step"] == 3


def test_distillation_changes_the_dit_alone(shard: dataset.Shard, log: Log) -> None:
    model = _model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    distil(model, _examples(shard), config=CONFIG, log=log)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}
    assert changed
    assert all(name.startswith("dit.") for name in changed)


def test_what_is_saved_is_what_is_loaded(folder: Path) -> None:
    model, vae = _model(), (SizedVAEEncoder(SHAPE), SizedVAEDecoder(SHAPE))
    models = {"dit": model.dit, "clip": model.clip, "t5": model.t5, "vae_encoder": vae[0], "vae_decoder": vae[1]}
    save_weights(folder, shape=SHAPE, profile=PROFILE, models=models)
    assert find_weights(folder).shape == SHAPE
    pipe = load_generator(folder, device="cpu")._pipe
    for ours, theirs in ((model.dit, pipe.dit), (model.t5, pipe.text_encoder_2), (vae[1], pipe.vae_decoder)):
        for name, tensor in theirs.state_dict().items():
            assert torch.equal(tensor, ours.state_dict()[name].bfloat16().float()), name


def test_a_contact_sheet_shows_every_picture() -> None:
    sheet = contact_sheet([Image.new("RGB", (64, 32), "red")] * 5, columns=3, tile=40)
    assert sheet.size == (120, 80)
    assert sheet.getpixel((20, 20)) == (255, 0, 0)
    assert sheet.getpixel((100, 60)) == (255, 255, 255)


def test_loss_curves_are_plotted(log: Log, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="only the extra [train] brings matplotlib")
    log.add("vae", step=1, seconds=0.5, error=0.5)
    log.add("vae", psnr_db=20.0)
    plot_losses(log, tmp_path / "losses.png")
    with Image.open(tmp_path / "losses.png") as picture:
        assert picture.width > 100
