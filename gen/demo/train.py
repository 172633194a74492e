"""`python -m gen.demo.train`: makes the small FLUX that ships with Kiln, from nothing, on one GPU.

Tokenizers → pictures and captions → VAE → classifier → DiT with text encoders → guidance distillation → files in
FLUX.1-dev's layout with a report. Every stage leaves its result in the work folder and is not done again. Knows no
engine and nothing of how pictures are asked for.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gen.demo import dataset, parallel, tokenizers
from gen.demo.checkpoint import seconds_spent
from gen.demo.classifier import Classifier
from gen.demo.classifier_training import ClassifierConfig, accuracy, train_classifier
from gen.demo.dit_training import DiTConfig, Examples, Size, batch_of, distil, train_dit
from gen.demo.layout import save_weights
from gen.demo.model import Model
from gen.demo.pictures import Pictures
from gen.demo.report import Log, plot_losses
from gen.demo.text_training import Captions, TextConfig, train_text
from gen.demo.vae_training import VAEConfig, psnr, to_pictures, train_vae
from gen.flux import SizedClip, SizedDiT, SizedT5, SizedVAEDecoder, SizedVAEEncoder, build_velocity
from gen.request import ModelProfile
from gen.weights import FluxShape

SHAPE = FluxShape(
    dim=192,
    heads=6,
    joint_blocks=3,
    single_blocks=5,
    rope_axes=(4, 14, 14),
    clip_dim=128,
    clip_heads=4,
    clip_layers=2,
    clip_hidden=384,
    clip_vocabulary=1536,
    t5_dim=192,
    t5_heads=6,
    t5_head_dim=32,
    t5_layers=3,
    t5_hidden=384,
    t5_vocabulary=1024,
    t5_tokens=64,
    vae_channels=(32, 64, 64, 64),
)
PROFILE = ModelProfile(
    name="kiln-demo",
    width=256,
    height=256,
    steps=12,
    guidance=3.5,
    side_min=128,
    side_max=384,
    pixels_max=384 * 384,
    is_demo=True,
)
PICTURES: dict[Size, int] = {  # with their mirror images
    (256, 256): 64_000,
    (128, 128): 48_000,
    (192, 192): 16_000,
    (288, 192): 12_000,
    (192, 288): 12_000,
    (384, 256): 8_000,
    (256, 384): 8_000,
    (320, 320): 4_000,
    (384, 384): 4_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One training run."""

    seed: int = 7
    minutes: float | None = 18.5  # of the whole run; the DiT takes what the other stages leave of them
    pictures: dict[Size, int] = field(default_factory=lambda: dict(PICTURES))
    unseen: int = 4096  # held-out pictures that test the classifier
    vae_share: float = 0.25  # of the pictures, rendered before the VAE's training starts
    vae: VAEConfig = field(default_factory=VAEConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)
    text: TextConfig = field(default_factory=TextConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)


TINY = Config(
    minutes=None,
    pictures={(256, 256): 512, (192, 128): 256},
    unseen=128,
    vae=VAEConfig(minutes=None, steps=4, crop_share=0.5, crop_batch=2, full_batch=1),
    classifier=ClassifierConfig(steps=2, batch=8),
    text=TextConfig(steps=2, batch=8),
    dit=DiTConfig(minutes=None, steps=4, distil_minutes=None, distil_steps=2, tokens=2400, checkpoint=2, compile=False),
)


CLOSING = 0.2  # minutes to write the weights and the report
_EXAMPLE_FIELDS = ("latents", "clip_ids", "t5_ids", "labels", "stated")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder for checkpoints and the result")
    parser.add_argument("--tiny", action="store_true", help="a few steps of everything, to try the code on a CPU")
    parser.add_argument("--minutes", type=float, help="of the whole run: the DiT trains for what others leave of them")
    arguments = parser.parse_args()
    config = TINY if arguments.tiny else Config()
    config = replace(config, minutes=arguments.minutes or config.minutes)
    device = parallel.start()
    torch.manual_seed(config.seed)
    torch.set_float32_matmul_precision("high")
    run(config, arguments.work, device)
    parallel.stop()


def run(config: Config, work: Path, device: torch.device) -> None:
    """All stages; the result stands in `work/weights`, the report in `work/report`."""
    log = Log(work / "report" / ("log.jsonl" if parallel.rank() == 0 else f"log-{parallel.rank()}.jsonl"))
    if parallel.rank() == 0:
        _describe(config, work / "report" / "config.json")
        _tokenizers(work / "weights")
    parallel.wait_for_all()
    vae = (SizedVAEEncoder(SHAPE).to(device), SizedVAEDecoder(SHAPE).to(device))
    model = Model(dit=SizedDiT(SHAPE), clip=SizedClip(SHAPE), t5=SizedT5(SHAPE), velocity=build_velocity()).to(device)
    model.clip.attn_mask = model.clip.attn_mask.to(device)  # a plain tensor, which `to` leaves where it was
    _initialize(model)
    parallel.copy_first([model])
    with ThreadPoolExecutor(max_workers=1) as beside:
        compiling = beside.submit(_compile, model, config, log)
        examples = _examples(config, work, device, log, vae, ready=compiling.done)
    compiling.result()
    if not (work / "dit.safetensors").exists():
        _text(model, examples, config.text, log)
    train_dit(model, examples, config=_fitted(config, work, log), folder=work, log=log)
    distil(model, examples, config=config.dit, log=log)
    if parallel.rank() == 0:
        models = {"dit": model.dit, "clip": model.clip, "t5": model.t5, "vae_encoder": vae[0], "vae_decoder": vae[1]}
        save_weights(work / "weights", shape=SHAPE, profile=PROFILE, models=models)
        plot_losses(log, work / "report" / "losses.png")


def _compile(model: Model, config: Config, log: Log) -> None:
    """With batches as they will come, the largest kind and the smallest: others would be compiled once more."""
    if config.dit.compile:
        sides = [(w // 8, h // 8) for w, h in config.pictures if (w, h) in ((256, 256), (128, 128), (384, 256))]
        like = [torch.empty(2**20, 16, h, w, device="meta") for w, h in sides]
        shapes = [(batch_of(config.dit.tokens, x, SHAPE.t5_tokens), x.shape[2], x.shape[3]) for x in like]
        model.compile_parts(shapes=shapes, t5_tokens=SHAPE.t5_tokens)
        log.add("compile")


def _fitted(config: Config, work: Path, log: Log) -> DiTConfig:
    """The DiT's share of the run's time: what is left, with what an earlier process took for it."""
    if config.minutes is None:
        return config.dit
    left = config.minutes - log.elapsed() / 60 - (config.dit.distil_minutes or 0.0) - CLOSING
    return replace(config.dit, minutes=max(0.1, left + seconds_spent(work / "dit.safetensors") / 60))


def _text(model: Model, examples: Mapping[Size, Examples], config: TextConfig, log: Log) -> None:
    parts = [
        Captions(clip_ids=e.clip_ids, t5_ids=e.t5_ids, labels=e.labels, stated=e.stated) for e in examples.values()
    ]
    train_text(model.clip, model.t5, parts, config=config, log=log)


def _describe(config: Config, path: Path) -> None:
    """Write down what this run is made of."""
    pictures = {f"{w}x{h}": number for (w, h), number in config.pictures.items()}
    told = {**asdict(replace(config, pictures={})), "pictures": pictures}
    path.write_text(json.dumps({"shape": asdict(SHAPE), "config": told}, indent=1) + "\n", "utf-8")


def _tokenizers(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "tokenizer_2").exists():
        return
    captions = dataset.sample_captions(40_000, seed=1)
    tokenizers.train_clip_tokenizer(captions, folder / "tokenizer", vocabulary=SHAPE.clip_vocabulary)
    tokenizers.train_t5_tokenizer(
        captions, folder / "tokenizer_2", vocabulary=SHAPE.t5_vocabulary, tokens=SHAPE.t5_tokens
    )


def _examples(
    config: Config,
    work: Path,
    device: torch.device,
    log: Log,
    vae: tuple[nn.Module, nn.Module],
    ready: Callable[[], bool],
) -> dict[Size, Examples]:
    """Latents and token ids; trains the VAE and the classifier on the way, where their files are not there yet.

    With several processes the first trains the VAE while the last trains the classifier; each encodes its own share.
    """
    path, rank = work / "vae.safetensors", parallel.rank()
    stored = {size: work / f"latents-{rank}-{size[0]}x{size[1]}.safetensors" for size in config.pictures}
    if path.exists() and all(file.exists() for file in stored.values()):
        _load_vae(path, vae)
        return {size: Examples(**_moved(load_file(file), device)) for size, file in stored.items()}
    pictures = Pictures(_plan(config, work), device, unseen=_plan_unseen(config, work))
    if rank == 0 and not path.exists():
        first = pictures.first(config.vae_share)
        log.add("pictures", share=config.vae_share)
        train_vae(vae, first, config=config.vae, log=log, ready=ready)
        log.add("vae", psnr_db=psnr(*vae, first[256, 256][:256]))
        save_file({f"{i}.{k}": t for i, m in enumerate(vae) for k, t in m.state_dict().items()}, path)
    everything = pictures.all()
    if rank == parallel.world() - 1:
        _classifier(config, work, log, everything, pictures)
    parallel.wait_for_all()
    _load_vae(path, vae)
    examples = {size: _encode(vae[0], shard) for size, shard in everything.items()}
    for size, example in examples.items():
        save_file({name: getattr(example, name) for name in _EXAMPLE_FIELDS}, stored[size])
    return examples


def _plan(config: Config, work: Path) -> list[dataset.Task]:
    folder = work / "weights"
    plan = dataset.plan_tasks(config.pictures, held_out=False, tokenizers=folder, t5_tokens=SHAPE.t5_tokens)
    return plan[parallel.rank() :: parallel.world()]


def _plan_unseen(config: Config, work: Path) -> list[dataset.Task]:
    """Pictures that test the classifier, for the process that trains it."""
    if parallel.rank() != parallel.world() - 1:
        return []
    sizes = {(256, 256): config.unseen, (192, 288): config.unseen // 4, (288, 192): config.unseen // 4}
    return dataset.plan_tasks(sizes, held_out=True, tokenizers=work / "weights", t5_tokens=SHAPE.t5_tokens)


def _classifier(
    config: Config, work: Path, log: Log, everything: Mapping[Size, dataset.Shard], pictures: Pictures
) -> None:
    """Train it, say how well it reads pictures that it never saw, and keep it; where it is kept, say so."""
    path = work / "weights" / "classifier.safetensors"
    if path.exists():
        log.add("classifier", kept=path.name)
        return
    unseen = pictures.unseen()
    classifier = Classifier().to(unseen[0][0].device)
    labelled = {size: (shard.pixels, shard.labels) for size, shard in everything.items()}
    train_classifier(classifier, labelled, config=config.classifier, log=log)
    small = {name: t.to(torch.bfloat16) for name, t in classifier.state_dict().items()}
    classifier.load_state_dict({name: t.float() for name, t in small.items()})
    log.add("classifier", **{f"unseen_{name}": share for name, share in accuracy(classifier, unseen).items()})
    save_file(small, path)


@torch.no_grad()
def _encode(encoder: nn.Module, shard: dataset.Shard) -> Examples:
    dtype = torch.bfloat16 if shard.pixels.is_cuda else torch.float32
    light = copy.deepcopy(encoder).to(dtype)
    parts = [light(to_pictures(p).to(dtype)).to(torch.float16) for p in torch.split(shard.pixels, 128)]
    return Examples(
        latents=torch.cat(parts),
        clip_ids=shard.clip_ids,
        t5_ids=shard.t5_ids,
        labels=shard.labels,
        stated=shard.stated,
    )


def _initialize(model: Model) -> None:
    """Modulation and the final layer start at zero, so that blocks start as identities (Peebles & Xie, "DiT", 2023)."""
    for name, module in model.dit.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
            if "norm" in name or name == "final_proj_out":
                nn.init.zeros_(module.weight)
    nn.init.normal_(model.clip.position_embeds, std=0.02)


def _load_vae(path: Path, vae: tuple[nn.Module, nn.Module]) -> None:
    state = load_file(path)
    for index, module in enumerate(vae):
        prefix = f"{index}."
        module.load_state_dict({k.removeprefix(prefix): t for k, t in state.items() if k.startswith(prefix)})


def _moved(state: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in state.items()}


if __name__ == "__main__":
    main()
