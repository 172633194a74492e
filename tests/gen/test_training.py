"""The training code at toy size, on the CPU: what it learns, what a checkpoint keeps, what files it leaves."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from gen.demo import dataset, tokenizers
from gen.demo.checkpoint import seconds_spent
from gen.demo.classifier import Classifier
from gen.demo.classifier_training import ClassifierConfig, accuracy, train_classifier
from gen.demo.dit_training import DiTConfig, Examples, distil, train_dit
from gen.demo.graphed import Graphed
from gen.demo.layout import save_weights
from gen.demo.model import Model
from gen.demo.pace import LOOK, Pace
from gen.demo.report import Log, contact_sheet, plot_losses
from gen.demo.scenes import ATTRIBUTES
from gen.demo.text_training import Captions, TextConfig, train_text
from gen.demo.vae_training import VAEConfig, psnr, train_vae
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
CONFIG = DiTConfig(
    minutes=None,
    steps=4,
    distil_minutes=None,
    distil_steps=2,
    tokens=300,
    checkpoint=2,
    warmup=1,
    compile=False,
)


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
    vae, pixels = (encoder, decoder), {(128, 128): shard.pixels[:32]}
    before = psnr(*vae, shard.pixels[:8])
    config = VAEConfig(minutes=None, steps=12, crop_share=0.8, crop=32, crop_batch=4, full_batch=1, warmup=1, ema=0.0)
    train_vae(vae, pixels, config=config, log=log)
    assert psnr(*vae, shard.pixels[:8]) > before + 2
    with torch.no_grad():
        latents = encoder(shard.pixels[:32].permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert abs(float(latents.std()) - 1) < 0.1


def test_the_text_encoders_learn_to_read_captions(shard: dataset.Shard, log: Log) -> None:
    model = _model()
    captions = Captions(clip_ids=shard.clip_ids, t5_ids=shard.t5_ids, labels=shard.labels, stated=shard.stated)
    for steps in (1, 100):
        config = TextConfig(steps=steps, batch=48, learning_rate=3e-3, warmup=10)
        train_text(model.clip, model.t5, [captions], config=config, log=log)
    first, last = (float(line["read_right"]) for line in log.lines())
    assert first < 0.3
    assert last > 0.4


def test_the_classifier_learns_its_pictures(shard: dataset.Shard, log: Log) -> None:
    torch.manual_seed(0)
    classifier = Classifier()
    labelled = {(128, 128): (shard.pixels, shard.labels)}
    before = accuracy(classifier, list(labelled.values()))["overall"]
    train_classifier(classifier, labelled, config=ClassifierConfig(steps=12, batch=16, warmup=1), log=log)
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


def test_a_stage_ends_when_its_minutes_are_over() -> None:
    seconds, steps = 0.0, 0
    pace = Pace(10**9, 2.0, device=torch.device("cpu"), spent=60.0, clock=lambda: seconds)
    seen = []
    while (progress := pace.progress(steps)) < 1:
        seen.append(progress)
        steps, seconds = steps + 1, seconds + 0.5
    assert seconds == pytest.approx(60.0, abs=0.5 * LOOK)
    assert seen[0] == pytest.approx(0.5)
    assert seen == sorted(seen)


def test_a_checkpoint_remembers_the_time_that_its_stage_took(shard: dataset.Shard, log: Log, tmp_path: Path) -> None:
    train_dit(_model(), _examples(shard), config=CONFIG, folder=tmp_path, log=log)
    spent = seconds_spent(tmp_path / "dit.safetensors")
    assert spent > 0
    over = replace(CONFIG, minutes=spent / 60)
    train_dit(_model(), _examples(shard), config=over, folder=tmp_path, log=log)
    assert log.lines()[-1]["steps"] == CONFIG.steps


def test_the_runs_time_goes_on_where_an_earlier_process_left_it(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"stage": "vae", "at": 100.0}\n', "utf-8")
    assert 100 <= Log(tmp_path / "log.jsonl").elapsed() < 160


def test_two_trainings_give_the_same_tokenizers(tmp_path: Path) -> None:
    """In processes of their own: within one, hash maps would often share an order."""
    script = (
        "import sys; from pathlib import Path; from gen.demo import dataset, tokenizers; to = Path(sys.argv[1]);"
        "captions = dataset.sample_captions(400, seed=1);"
        "tokenizers.train_clip_tokenizer(captions, to / 'tokenizer', vocabulary=640);"
        "tokenizers.train_t5_tokenizer(captions, to / 'tokenizer_2', vocabulary=400, tokens=24)"
    )
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-c", script, str(tmp_path / name)], check=True)
        made.append([file.read_bytes() for file in sorted((tmp_path / name).glob("*/*.json"))])
    assert len(made[0]) == 4
    assert made[0] == made[1]


def test_on_a_cpu_a_step_is_simply_called(log: Log) -> None:
    called: list[str] = []

    def step(kind: str) -> dict[str, torch.Tensor]:
        called.append(kind)
        return {"loss": torch.ones(())}

    steps = Graphed(step, stage="dit", device=torch.device("cpu"), log=log)
    assert [float(steps(kind)["loss"]) for kind in "aabaa"] == [1.0] * 5
    assert called == list("aabaa")
    assert steps.captured == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs are made on a card")
def test_a_graph_does_what_the_plain_step_does_and_a_step_that_waits_stays_plain(log: Log) -> None:
    device = torch.device("cuda", 0)
    total = torch.zeros((), device=device)

    def step(kind: int) -> dict[str, torch.Tensor]:
        total.add_(kind)
        if kind == 3:
            float(total)
        return {"total": total.clone()}

    steps = Graphed(step, stage="dit", device=device, log=log)
    assert [float(steps(kind)["total"]) for kind in (1, 2, 1, 2, 1, 2, 1)] == [1, 3, 4, 6, 7, 9, 10]
    assert steps.captured == 2
    assert [float(steps(kind)["total"]) for kind in (3, 3, 3, 1)] == [13, 16, 19, 20]
    assert steps.captured == 0
    assert "uncaptured" in log.lines()[-1]


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
