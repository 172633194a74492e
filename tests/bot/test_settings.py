"""Settings: what is left out has a default, what is wrong stops the start with its name."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from bot.errors import StartError
from bot.settings import Settings, load_settings, unknown_names, variable
from gen.weights import DEMO_WEIGHTS

EXAMPLE = Path(__file__).parents[2] / ".env.example"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no .env of this machine."""
    monkeypatch.chdir(tmp_path)
    for field in Settings.model_fields:
        monkeypatch.delenv(variable(field), raising=False)


def test_everything_has_a_default() -> None:
    settings = load_settings()
    assert settings.weights == DEMO_WEIGHTS
    assert settings.database == Path("data/kiln.sqlite3")
    assert settings.discord_token is None
    assert settings.limits.waiting_per_user == 5


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("KILN_BURST=3\nKILN_PICTURES_PER_HOUR=7\n")
    monkeypatch.setenv("KILN_BURST", "4")
    settings = load_settings()
    assert (settings.burst, settings.pictures_per_hour) == (4, 7)


def test_an_empty_value_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILN_BURST", "")
    assert load_settings().burst == 10


def test_the_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCORD_TOKEN", "top-secret")
    settings = load_settings()
    assert "top-secret" not in f"{settings!r} {settings} {settings.model_dump()}"
    assert settings.discord_token is not None
    assert settings.discord_token.get_secret_value() == "top-secret"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("KILN_WIEGHTS", "KILN_WEIGHTS"), ("KILN_DAT", "KILN_DATA"), ("kiln_bursts", "KILN_BURST")],
)
def test_a_typing_error_names_the_nearest_setting(wrong: str, right: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(wrong, "x")
    with pytest.raises(StartError, match=f"^{wrong.upper()} is not a setting; did you mean {right}\\?$"):
        load_settings()


@pytest.mark.parametrize("wrong", ["KILN_WIEGHTS", "DISCORD_TOKN", "KILN_XYZ"])
def test_a_typing_error_in_the_file_is_found_too(wrong: str) -> None:
    Path(".env").write_text(f"{wrong}=x\n")
    with pytest.raises(StartError, match=f"{wrong} is not a setting"):
        load_settings()


def test_variables_of_other_programs_are_none_of_ours() -> None:
    assert unknown_names(["PATH", "DISCORD_TOKENS_ELSEWHERE", "HOME"], in_file=["POSTGRES_PASSWORD"]) == []


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("KILN_BURST", "many", "valid integer"),
        ("KILN_BURST", "0", "greater than or equal to 1"),
        ("KILN_BURST", "-3", "greater than or equal to 1"),
        ("KILN_PICTURES_PER_HOUR", "1e9", "valid integer"),
        ("KILN_MAX_WAITING_PER_USER", "101", "less than or equal to 100"),
        ("KILN_DEVICE", "gpu", "auto, cpu, mps, cuda or cuda:N"),
        ("KILN_DEVICE", "cuda:256", "auto, cpu, mps, cuda or cuda:N"),
        ("KILN_QUIET_HOURS", "22-7", "two times of day such as 22:00-07:00"),
        ("KILN_TEMPERATURE_MAX", "20", "greater than or equal to 30"),
        ("KILN_TEMPERATURE_MAX", "nan", "less than or equal to 110"),
        ("KILN_POWER_MAX", "-1", "greater than or equal to 10"),
        ("KILN_UNLOAD_AFTER", "0", "greater than 0"),
        ("KILN_KEEP_DAYS", "-1", "greater than 0"),
        ("KILN_KEEP_SIZE", "all", "a size such as 50GiB"),
        ("KILN_KEEP_SIZE", "much", "a size such as 50GiB"),
        ("KILN_KEEP_SIZE", "0", "greater than 0"),
        ("KILN_KEEP_SIZE", "0GiB", "a size such as 50GiB"),
        ("KILN_PINNED_MEMORY", "all", "a size such as 50GiB"),
        ("KILN_PINNED_MEMORY", "-1", "a size such as 50GiB"),
        ("KILN_BACKUPS", "-1", "greater than or equal to 0"),
        ("KILN_WEB", "9464", "a host and a port such as 127.0.0.1:9464, or off"),
        ("KILN_WEB", "127.0.0.1:65536", "a host and a port"),
        ("KILN_WEB", ":9464", "a host and a port"),
        ("KILN_WEB", "127..0.1:9464", "between two dots has 1 to 63 characters (it is '127..0.1:9464')"),
        ("KILN_WEB", "a" * 70 + ":9464", "between two dots has 1 to 63 characters"),
        ("KILN_CONSOLE_HOST", "127..0.1", "between two dots has 1 to 63 characters"),
        ("KILN_LOG_FORMAT", "xml", "'text' or 'json'"),
        ("KILN_OWNER_IDS", "123", "17 to 20 digits"),
        ("KILN_OWNER_IDS", "123456789012345678;x", "17 to 20 digits"),
        ("KILN_LOG_LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ],
)
def test_a_bad_value_is_one_line_with_name_and_value(
    name: str, value: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StartError) as refused:
        load_settings()
    (line,) = str(refused.value).splitlines()
    assert line.startswith(name)
    assert word in line
    assert repr(value) in line


@pytest.mark.parametrize("name", ["KILN_DATA", "KILN_WEIGHTS"])
def test_a_tilde_is_the_home_folder(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(name, "~/kiln")
    settings = load_settings()
    assert tmp_path / "kiln" in (settings.data, settings.weights)


def test_the_home_folder_of_nobody_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILN_DATA", "~nobody-of-that-name/kiln")
    with pytest.raises(StartError, match=r"^KILN_DATA: .*no such home folder.*nobody-of-that-name"):
        load_settings()


def test_a_mac_may_draw_on_its_graphics_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILN_DEVICE", "mps")
    assert load_settings().device == "mps"


@pytest.mark.parametrize("wrong", ["DISCORD_TOKENN", "DISCORD_TOKN", "DISCORDTOKEN"])
def test_a_misspelt_token_in_the_environment_is_named(wrong: str) -> None:
    assert unknown_names([wrong, "PATH"]) == [f"{wrong} is not a setting; did you mean DISCORD_TOKEN?"]
    assert unknown_names([wrong, "DISCORD_TOKEN"]) == [], "it is another program's"
    assert unknown_names(["DISCORD_WEBHOOK_URL"]) == []


def test_two_mistakes_are_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILN_BURST", "x")
    monkeypatch.setenv("KILN_DEVICE", "y")
    with pytest.raises(StartError) as refused:
        load_settings()
    assert len(str(refused.value).splitlines()) == 2


def test_owners_are_ids_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILN_OWNER_IDS", " 123456789012345678, 223456789012345678,")
    assert load_settings().owner_ids == frozenset({123456789012345678, 223456789012345678})


def test_a_file_that_is_not_text_is_one_line() -> None:
    Path(".env").write_bytes(b"KILN_BURST=\xff\xfe\n")
    with pytest.raises(StartError, match=r"\.env cannot be read"):
        load_settings()


def test_the_log_level_may_be_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KILN_LOG_LEVEL", "debug")
    assert load_settings().log_level == "DEBUG"


def test_the_example_names_exactly_the_settings() -> None:
    named = re.findall(r"^(?:# )?([A-Z_]+)=", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert sorted(named) == sorted(variable(field) for field in Settings.model_fields)


def test_the_example_shows_the_defaults() -> None:
    shown = dict(re.findall(r"^# (KILN_[A-Z_]+)=(.+)$", EXAMPLE.read_text(), flags=re.MULTILINE))
    fields = {variable(name): field for name, field in Settings.model_fields.items()}
    for name, value in shown.items():
        assert value == str(fields[name].default)


def test_each_setting_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_owners_wishes_come_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("QUIET_HOURS", "22:00-07:00"), ("UNLOAD_AFTER", "1.5"), ("KEEP_SIZE", "2GiB")):
        monkeypatch.setenv(f"KILN_{name}", value)
    settings = load_settings()
    assert settings.manners.quiet is not None
    assert (settings.manners.quiet.end.hour, settings.manners.unload_after) == (7, timedelta(seconds=90))
    assert (settings.keeping.picture_bytes, settings.keeping.days, settings.keeping.backups) == (2 * 2**30, None, 7)


@pytest.mark.parametrize(("text", "count"), [("", None), ("0", 0), ("8GiB", 8 * 2**30)])
def test_the_memory_that_may_be_locked_comes_from_the_settings(
    text: str, count: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILN_PINNED_MEMORY", text)
    assert load_settings().tuning.pinned_bytes == count
