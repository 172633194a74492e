"""`kiln weights` with ModelScope's real client against a loopback hub: whole, cut, wrong, refused, full, offline."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gen.errors import DownloadFailed, InvalidRequest, WeightsMissing
from gen.pull.hub import _check_path, _literal
from gen.pull.known import KNOWN, model_called
from gen.pull.store import locked, read_listed
from gen.weight_file import sha256
from gen.weights import DEMO_WEIGHTS, find_weights
from tests.loopback_hub import Cut, Fault, Flip, Hold, LoopbackHub, Slow, Status

DIT = "majicflus_v134.safetensors"
PARTS, TUNED = "black-forest-labs/FLUX.1-dev", "MAILAND/majicflus_v1"
FOLDERS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
QUICK = {"MODELSCOPE_DOWNLOAD_MAX_RETRIES": "0"}  # the client's own; Kiln's one stays


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(slots=True, kw_only=True)
class Weights:
    """`python -m gen weights` with a hub and a cache of its own."""

    hub: LoopbackHub
    cache: Path

    @property
    def folder(self) -> Path:
        return self.cache / "kiln" / "majicflus_v1"

    @property
    def snapshot(self) -> Path:
        return self.cache / "models" / TUNED.replace("/", "--") / "snapshots" / "master"

    async def start(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        own = {"MODELSCOPE_ENDPOINT": self.hub.address, "MODELSCOPE_CACHE": str(self.cache), "HOME": str(self.cache)}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gen", "weights", *arguments),
            env={**os.environ, **own, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str, **environment: str) -> Done:
        process = await self.start(*arguments, **environment)
        out, err = await process.communicate()
        return Done(code=process.returncode or 0, out=out.decode(), err=err.decode())

    async def pull(self, **environment: str) -> Done:
        return await self("pull", "majicflus_v1", "--accept-licence", **environment)


@pytest.fixture
async def weights(tmp_path: Path) -> AsyncIterator[Weights]:
    """The demo model's files under the names of the large one."""
    async with LoopbackHub() as hub:
        hub.repositories[TUNED] = {
            DIT: DEMO_WEIGHTS / "kiln-demo.safetensors",
            "kiln.json": DEMO_WEIGHTS / "kiln.json",
            "majicflus_v134_fp8.safetensors": b"not asked for",
        }
        files = {f"{name}/{file.name}": file for name in FOLDERS for file in (DEMO_WEIGHTS / name).iterdir()}
        parts: dict[str, Path | bytes] = {
            "ae.safetensors": DEMO_WEIGHTS / "ae.safetensors",
            "LICENSE.md": b"terms",
            "transformer/x.bin": b"no",
        }
        hub.repositories[PARTS] = {**parts, **files}
        yield Weights(hub=hub, cache=tmp_path / "cache")
        assert hub.unknown == []


async def test_a_pull_shows_sizes_room_and_licence_and_fetches_nothing_before_it_is_accepted(weights: Weights) -> None:
    done = await weights("pull", "majicflus_v1")
    assert done.code == 1
    assert re.search(rf"{DIT} +14\.3 MB", done.out)
    assert "To fetch: 21.7 MB. Free on that disk: " in done.out
    assert "non-commercial use only" in done.out
    assert "--accept-licence" in done.err
    assert not weights.hub.served


async def test_a_pull_ends_with_a_folder_that_draws_and_asks_for_no_other_file(weights: Weights) -> None:
    done = await weights.pull()
    assert (done.code, done.err) == (0, "")
    assert f"KILN_WEIGHTS={weights.folder}" in done.out
    assert sha256(find_weights(weights.folder).dit) == sha256(DEMO_WEIGHTS / "kiln-demo.safetensors")
    assert not {"majicflus_v134_fp8.safetensors", "transformer/x.bin"} & set(weights.hub.served)


async def grown(path: Path, size: int) -> None:
    """Another process has written so much of it: what is in flight when it is killed must be sent again."""
    async with asyncio.timeout(20):
        while _size(path) < size:  # noqa: ASYNC110 - another process's file: nothing to await
            await asyncio.sleep(0.01)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def test_a_pull_that_is_interrupted_five_times_ends_verified_and_sends_no_byte_more_than_twice(
    weights: Weights,
) -> None:
    for number in range(1, 6):
        weights.hub.faults[DIT] = [Hold(2_000_000)]
        weights.hub.held.clear()
        process = await weights.start("pull", "majicflus_v1", "--accept-licence")
        await weights.hub.held.wait()
        await grown(weights.snapshot / f"{DIT}.incomplete", weights.hub.served[DIT][-1].first + 1_000_000)
        process.send_signal(signal.SIGKILL if number % 2 else signal.SIGINT)
        assert await process.wait() != 0
    done = await weights.pull()
    assert done.code == 0
    assert (await weights("verify", "majicflus_v1")).code == 0
    assert len(weights.hub.served[DIT]) == 6
    assert max(map(weights.hub.times_served, weights.hub.served)) <= 2
    resumed = [served.first for served in weights.hub.served[DIT]]
    assert resumed == sorted(resumed)
    assert resumed[-1] > 5_000_000  # each began where the one before had come to


async def test_a_file_that_the_hub_cuts_is_gone_on_with_after_a_pause(weights: Weights) -> None:
    weights.hub.faults[DIT] = [Cut(3_000_000)]
    done = await weights.pull(**QUICK)
    assert done.code == 0
    first, second = weights.hub.served[DIT]
    assert 0 < second.first <= first.past


async def test_a_hub_that_cuts_again_and_again_is_left_in_peace_and_what_came_is_kept(weights: Weights) -> None:
    weights.hub.faults[DIT] = [Cut(3_000_000), Cut(3_000_000)]
    done = await weights.pull(**QUICK)
    assert done.code == 1
    assert "the connection broke" in done.err
    assert "What came is kept" in done.err
    assert "Traceback" not in done.err
    assert not (weights.snapshot / DIT).exists()
    assert (weights.snapshot / f"{DIT}.incomplete").stat().st_size > 3_000_000
    assert (await weights.pull()).code == 0


async def test_a_hub_that_falls_silent_is_given_up_and_gone_on_with(weights: Weights) -> None:
    weights.hub.faults[DIT] = [Hold(1_000_000)]
    done = await weights.pull(**QUICK, MODELSCOPE_DOWNLOAD_TIMEOUT="1")
    assert done.code == 0
    assert len(weights.hub.served[DIT]) == 2


async def test_a_slow_hub_is_waited_for(weights: Weights) -> None:
    weights.hub.faults["ae.safetensors"] = [Slow(0.02)]
    assert (await weights.pull()).code == 0
    assert len(weights.hub.served["ae.safetensors"]) == 1


@pytest.mark.parametrize(
    ("path", "fault", "words"),
    [
        (DIT, Flip(100_000), "another size or checksum than the hub states"),
        (DIT, Status(403), r"does not give out MAILAND/majicflus_v1: majicflus_v134\.safetensors \(HTTP 401 or 403\)"),
        (DIT, Status(404), r"has no MAILAND/majicflus_v1: majicflus_v134\.safetensors \(HTTP 404\)"),
        (DIT, Status(500), "The hub is in trouble over MAILAND/majicflus_v1"),
        ("files", Status(403), r"does not give out MAILAND/majicflus_v1 \(HTTP 401 or 403\)"),
        ("files", Status(404), r"has no MAILAND/majicflus_v1 \(HTTP 404\)"),
    ],
)
async def test_what_the_hub_does_wrong_is_one_line_and_leaves_no_file(
    weights: Weights, path: str, fault: Fault, words: str
) -> None:
    weights.hub.faults[path] = [fault] * 20
    done = await weights.pull(**QUICK)
    assert done.code == 1
    assert re.search(words, done.err)
    assert len(done.err.splitlines()) == 1
    assert not (weights.snapshot / DIT).exists()
    assert not weights.folder.exists()


async def test_a_500_that_passes_is_not_even_seen(weights: Weights) -> None:
    weights.hub.faults[DIT] = [Status(500)]
    assert (await weights.pull(**QUICK)).code == 0


async def test_a_disk_that_gets_full_is_told_and_gone_on_with(weights: Weights) -> None:
    begun = weights.snapshot / f"{DIT}.incomplete"
    begun.parent.mkdir(parents=True)
    begun.symlink_to("/dev/full")  # the kernel's own full disk
    done = await weights.pull(**QUICK)
    assert done.code == 1
    assert "The disk is full" in done.err
    assert not (weights.snapshot / DIT).exists()
    begun.unlink()
    assert (await weights.pull()).code == 0


async def test_a_model_that_has_no_room_is_refused_before_it_starts(weights: Weights) -> None:
    weights.hub.listed_bytes[DIT] = 10**16
    done = await weights.pull()
    assert done.code == 1
    assert re.search(r"10000000\.0 GB are to be fetched and .* are free on the disk", done.err)
    assert not weights.hub.served


async def test_without_a_network_the_files_their_sizes_and_the_folder_are_told(weights: Weights) -> None:
    done = await weights.pull(MODELSCOPE_ENDPOINT="http://127.0.0.1:9")
    assert done.code == 1
    assert "The hub cannot be reached" in done.err
    assert f"place these files (sizes are about) in {weights.folder}" in done.err
    assert re.search(rf"{DIT} +23\.8 GB  of {TUNED}", done.err)
    assert re.search(rf"ae\.safetensors +335\.3 MB  of {PARTS}", done.err)
    assert "kiln weights pull majicflus_v1 --offline" in done.err


async def test_offline_nothing_is_asked_and_what_is_missing_is_told(weights: Weights) -> None:
    done = await weights("pull", "majicflus_v1", "--offline")
    assert done.code == 1
    assert f"place these files (sizes are about) in {weights.folder}" in done.err
    assert weights.hub.asked == []


def place(weights: Weights, *names: str) -> None:
    """Put the demo model's files where a person would, under the large model's names."""
    for name in names:
        target = weights.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        content = {**weights.hub.repositories[TUNED], **weights.hub.repositories[PARTS]}[name]
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())


async def test_files_placed_by_hand_are_a_model_without_any_network(weights: Weights) -> None:
    place(weights, DIT, "kiln.json", *weights.hub.repositories[PARTS])
    done = await weights("pull", "majicflus_v1", "--offline")
    assert done.code == 0, done.err
    assert "The hub states no sum for" in done.out
    assert weights.hub.asked == []
    assert (await weights("where", "majicflus_v1")).out == f"{weights.folder}\n"


async def test_files_placed_by_hand_are_compared_with_the_hub_and_not_fetched(weights: Weights) -> None:
    place(weights, DIT, "ae.safetensors")
    assert (await weights.pull()).code == 0
    assert not {DIT, "ae.safetensors"} & set(weights.hub.served)


async def test_links_that_a_person_made_are_checked_and_stay(weights: Weights, tmp_path: Path) -> None:
    other = tmp_path / "other disk"
    (other / "loras").mkdir(parents=True)
    mine = other / "any name.safetensors"
    mine.write_bytes((DEMO_WEIGHTS / "kiln-demo.safetensors").read_bytes())
    (weights.folder / "styles").mkdir(parents=True)
    links = {DIT: mine, "loras": other / "loras", "styles/ink.safetensors": other / "not plugged in"}
    for path, target in links.items():
        (weights.folder / path).symlink_to(target)
    for arguments in ((), (), ("--offline",)):
        done = await weights("pull", "majicflus_v1", "--accept-licence", *arguments)
        assert done.code == 0, done.err
    assert {path: (weights.folder / path).readlink() for path in links} == links
    assert DIT not in weights.hub.served
    flip(mine, 7_000_000)
    assert "It is yours, so it was not replaced" in (await weights.pull()).err
    assert (weights.folder / DIT).readlink() == mine


@pytest.mark.parametrize("damage", ["a flipped byte", "half a file"])
async def test_a_file_placed_by_hand_that_is_not_the_hubs_is_named_and_never_replaced(
    weights: Weights, damage: str
) -> None:
    place(weights, DIT)
    mine = weights.folder / DIT
    content = bytearray(mine.read_bytes())
    content[5000] ^= 1
    mine.write_bytes(content if damage == "a flipped byte" else content[:1000])
    before = mine.read_bytes()
    done = await weights.pull()
    assert done.code == 1
    assert f"{mine} is not the file that the hub has" in done.err
    assert mine.read_bytes() == before


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("at", [9, 7_000_000, 14_306_863], ids=["in the header", "in the middle", "the last byte"])
async def test_verify_finds_a_flipped_byte_and_a_pull_mends_it(weights: Weights, at: int) -> None:
    await weights.pull()
    flip(weights.snapshot / DIT, at)
    asked = len(weights.hub.asked)
    done = await weights("verify", "majicflus_v1")
    assert done.code == 1
    assert re.search(rf"FAIL  {DIT} is damaged: its sha256 is", done.out)
    assert re.search(r"ok    ae\.safetensors, 3\.5 MB, the hub's sum", done.out)
    assert len(weights.hub.asked) == asked
    assert (await weights("pull", "majicflus_v1", "--offline")).code == 1
    assert (await weights.pull()).code == 0
    assert (await weights("verify", "majicflus_v1")).code == 0


async def test_verify_finds_a_flipped_byte_whose_sum_the_hub_did_not_state(weights: Weights) -> None:
    weights.hub.unstated = set(weights.hub.repositories[TUNED]) | set(weights.hub.repositories[PARTS])
    assert (await weights.pull()).code == 0
    flip(weights.snapshot / DIT, 7_000_000)
    done = await weights("verify", "majicflus_v1")
    assert done.code == 1
    assert "ok    ae.safetensors, 3.5 MB, the sum it had when it came" in done.out


async def test_verify_compares_a_folder_that_nobody_pulled_with_the_hub(weights: Weights, tmp_path: Path) -> None:
    place(weights, DIT, *weights.hub.repositories[PARTS])
    mine = weights.folder.rename(tmp_path / "mine")
    flip(mine / "ae.safetensors", 3_000_000)
    done = await weights("verify", str(mine))
    assert done.code == 1
    assert f"ok    {DIT}, 14.3 MB, the hub's sum" in done.out
    assert "FAIL  ae.safetensors is damaged" in done.out


async def test_two_pulls_do_not_collide(weights: Weights) -> None:
    weights.hub.faults[DIT] = [Hold(1_000_000)]
    first = await weights.start("pull", "majicflus_v1", "--accept-licence")
    await weights.hub.held.wait()
    second = await weights.pull()
    assert second.code == 1
    assert f"Another pull (process {first.pid}) fills {weights.cache}" in second.err
    first.kill()
    await first.wait()
    assert (await weights.pull()).code == 0  # no lock is left behind


async def test_a_folder_that_cannot_be_written_is_told(weights: Weights) -> None:
    done = await weights.pull(MODELSCOPE_CACHE="/proc/kiln")
    assert done.code == 1
    assert re.search(r"The folder /proc/kiln/kiln cannot be written.*MODELSCOPE_CACHE", done.err)


async def test_a_second_model_shares_the_parts_that_are_here(weights: Weights) -> None:
    weights.hub.repositories[PARTS] |= {
        "flux1-dev.safetensors": DEMO_WEIGHTS / "kiln-demo.safetensors",
        "kiln.json": DEMO_WEIGHTS / "kiln.json",
    }
    await weights.pull()
    done = await weights("pull", "FLUX.1-dev", "--accept-licence")
    assert done.code == 0
    assert weights.hub.times_served("ae.safetensors") == 1
    listed = (await weights("list")).out
    assert listed.count("here, bfloat16") == 2


async def test_a_cache_that_was_moved_is_whole_where_it_is_now(weights: Weights) -> None:
    await weights.pull()
    weights.cache = weights.cache.rename(weights.cache.with_name("elsewhere"))
    assert find_weights(weights.folder).dit.resolve().is_relative_to(weights.cache)
    assert (await weights("verify", "majicflus_v1", "--offline")).code == 0


async def test_a_fine_tune_by_its_path_gets_the_other_parts(weights: Weights, tmp_path: Path) -> None:
    tuned = tmp_path / "mine.safetensors"
    tuned.write_bytes((DEMO_WEIGHTS / "kiln-demo.safetensors").read_bytes())
    folder = weights.cache / "kiln" / "mine"
    folder.mkdir(parents=True)
    (folder / "kiln.json").write_bytes((DEMO_WEIGHTS / "kiln.json").read_bytes())
    done = await weights("pull", str(tuned), "--accept-licence")
    assert done.code == 0, done.err
    assert find_weights(folder).dit.resolve() == tuned
    flip(tuned, 7_000_000)
    assert (await weights("verify", "mine")).code == 1


async def test_a_second_fine_tune_of_the_same_name_is_refused_and_the_first_stays(
    weights: Weights, tmp_path: Path
) -> None:
    first, second = tmp_path / "a" / "mine.safetensors", tmp_path / "b" / "mine.safetensors"
    folder = weights.cache / "kiln" / "mine"
    for made in (first.parent, second.parent, folder):
        made.mkdir(parents=True)
    first.write_bytes((DEMO_WEIGHTS / "kiln-demo.safetensors").read_bytes())
    second.write_bytes(first.read_bytes())
    (folder / "kiln.json").write_bytes((DEMO_WEIGHTS / "kiln.json").read_bytes())
    assert (await weights("pull", str(first), "--accept-licence")).code == 0
    for more in ("--accept-licence", "--offline"):
        refused = await weights("pull", str(second), more)
        assert refused.code == 1
        assert f"'mine' already, and its file is {first}, not {second}" in refused.err
        assert find_weights(folder).dit.resolve() == first
    first.unlink()  # moved: the link leads nowhere, and is Kiln's own
    assert (await weights("pull", str(second), "--offline")).code == 0
    assert find_weights(folder).dit.resolve() == second


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + b"\0" * 100, "is a pickle, whatever its name says"),
        (b"\x80\x02}q\x00." + b"\0" * 100, "is a pickle, whatever its name says"),
        (b"<html>", "is damaged, or not a safetensors file"),
        ((DEMO_WEIGHTS / "ae.safetensors").read_bytes(), r"is not a model of FLUX\.1's architecture"),
        ((DEMO_WEIGHTS / "kiln-demo.safetensors").read_bytes(), r"does not fit the model's shape: .*img_in\.weight is"),
    ],
    ids=["a zip of torch's", "a bare pickle", "a web page", "another model", "another size of it"],
)
async def test_what_is_no_flux_model_is_refused_before_anything_is_fetched(
    weights: Weights, tmp_path: Path, content: bytes, words: str
) -> None:
    path = tmp_path / "renamed.safetensors"
    path.write_bytes(content)
    done = await weights("pull", str(path), "--accept-licence")
    assert done.code == 1
    assert re.search(words, done.err)
    assert weights.hub.asked == []


async def test_a_pickle_that_a_hub_gives_out_is_refused(weights: Weights) -> None:
    weights.hub.repositories[TUNED][DIT] = b"PK\x03\x04" + bytes(2000)
    done = await weights.pull()
    assert done.code == 1
    assert "is a pickle, whatever its name says" in done.err


async def test_a_hub_cannot_write_outside_the_folder(weights: Weights) -> None:
    weights.hub.repositories[PARTS]["text_encoder/../../../../outside"] = b"x"
    done = await weights.pull()
    assert done.code == 1
    assert "names a file outside its folder" in done.err
    assert not weights.hub.served


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../../x", "a\\..\\x", "a\nb"])
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(DownloadFailed, match="outside its folder"):
        _check_path(path, "owner/name")


def test_a_file_name_is_no_pattern() -> None:
    assert _literal("a[1]*.bin") == "a[[]1][*].bin"


@pytest.mark.parametrize("name", ["nothing", "", "../FLUX.1-dev"])
def test_an_unknown_model_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"majicflus_v1, FLUX\.1-dev, or a FLUX-dev"):
        model_called(name)


@pytest.mark.parametrize("name", ["ae", "VAE", "clip_l", "clip-g", "t5xxl_fp8_e4m3fn", "t5_xxl.bf16", "text_encoder_2"])
def test_a_fine_tune_that_is_named_like_a_part_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.safetensors").write_bytes(b"")
    with pytest.raises(InvalidRequest, match=r"named like a part of a model \(VAE, text encoder or tokenizer\)"):
        model_called(str(tmp_path / f"{name}.safetensors"))


@pytest.mark.parametrize("name", ["clipart", "aesthetic", "t5-shirts", "vaet_f8", "clip_love"])
def test_a_name_that_only_begins_like_a_part_is_a_models(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.safetensors").write_bytes(b"")
    assert model_called(str(tmp_path / f"{name}.safetensors")).name == name


@pytest.mark.parametrize("name", ["FLUX.1-dev.safetensors", "flux.1-DEV.safetensors", "...safetensors"])
def test_a_fine_tune_cannot_take_another_models_place(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InvalidRequest, match="rename the file"):
        model_called(str(tmp_path / name))


@pytest.mark.parametrize("content", ["{", "[{}]", "[1]"])
def test_a_damaged_list_of_sums_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "kiln-files.json").write_text(content)
    with pytest.raises(WeightsMissing, match=r"kiln-files\.json cannot be read"):
        read_listed(tmp_path)


def test_the_sizes_are_those_of_the_shape() -> None:
    """What is told without a network: 11.9 billion parameters of the DiT, 4.76 of T5, at two bytes each."""
    sizes = {
        file.path: file.about_bytes for repository in KNOWN["FLUX.1-dev"].repositories for file in repository.files
    }
    assert sizes["flux1-dev.safetensors"] == pytest.approx(11.9e9 * 2, rel=0.001)
    t5 = sum(count for path, count in sizes.items() if path.startswith("text_encoder_2/model-"))
    assert t5 == pytest.approx(4.76e9 * 2, rel=0.001)


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(WeightsMissing, match=f"process {os.getpid()}"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


async def test_these_commands_never_load_torch(weights: Weights) -> None:
    code = (
        "import sys\nfrom gen.__main__ import main\n"
        "assert main(['weights', 'pull', 'majicflus_v1', '--accept-licence']) == 0\n"
        "assert main(['weights', 'verify', 'majicflus_v1']) == 0\n"
        "sys.exit('torch was loaded' if 'torch' in sys.modules else 0)"
    )
    own = {"MODELSCOPE_ENDPOINT": weights.hub.address, "MODELSCOPE_CACHE": str(weights.cache)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env={**os.environ, **own}, stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


async def test_the_sums_are_written_down_beside_the_links(weights: Weights) -> None:
    await weights.pull()
    listed = {entry["path"]: entry for entry in json.loads((weights.folder / "kiln-files.json").read_text())}
    assert listed[DIT]["sha256"] == sha256(DEMO_WEIGHTS / "kiln-demo.safetensors")
    assert (weights.folder / DIT).is_symlink()
