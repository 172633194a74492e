"""Every knob of Kiln, typed, with its unit; read once at start from the environment and `.env`.

An unknown `KILN_` name stops the start and names the nearest real one, because a typing error that is silently
ignored is found weeks later. Knows no Discord, no database and no model.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bot.errors import StartError
from bot.host.courtesy import Manners, QuietHours, parse_hours
from bot.host.keeping import Keeping
from bot.host.ports import OFF, checked_host
from bot.queue.job import Limits, OverLimit
from gen.errors import InvalidRequest
from gen.streaming.cards import GIB
from gen.streaming.planner import parse_budget
from gen.streaming.sizes import Precision
from gen.tuning import Tuning, default_cache
from gen.weights import DEMO_WEIGHTS

PREFIX = "KILN_"
TOKEN = "DISCORD_TOKEN"
SECRETS = frozenset({TOKEN, "KILN_CONSOLE_PASSWORD"})
ENV_FILE = Path(".env")


def _expanded(folder: Path) -> Path:
    """`~` is somebody's home here too: .env is read by no shell."""
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise ValueError("there is no such home folder") from error


def _budget(text: str) -> str:
    """A size that the planner reads."""
    try:
        parse_budget(text, free_bytes=GIB)
    except InvalidRequest as error:
        raise ValueError("should be a size such as 6.8GiB or 900MiB, or all") from error
    return text


def _size(text: str) -> int:
    """Bytes of `50GiB` and the like, or of 0."""
    try:
        found = 0 if text.strip() == "0" else parse_budget(text, free_bytes=-1)
    except InvalidRequest:
        found = -1
    if found < 0:
        raise ValueError("should be a size such as 50GiB or 900MiB")
    return found


def _address(text: str) -> str:
    """`off`, or a host and a port."""
    host, _, port = text.rpartition(":")
    if text != OFF and not (host and port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise ValueError("should be a host and a port such as 127.0.0.1:9464, or off")
    if text != OFF:
        checked_host(host)
    return text


Folder = Annotated[Path, AfterValidator(_expanded)]
Budget = Annotated[str, AfterValidator(_budget)]
Size = Annotated[int, BeforeValidator(_size)]
Hours = Annotated[QuietHours, BeforeValidator(parse_hours)]
Address = Annotated[str, AfterValidator(_address)]
Host = Annotated[str, AfterValidator(checked_host)]


def _ids(text: object) -> object:
    """Discord ids with commas between them."""
    if not isinstance(text, str):
        return text
    names = [name for name in text.replace(",", " ").split() if name]
    if not all(name.isascii() and name.isdecimal() and 17 <= len(name) <= 20 for name in names):
        raise ValueError("should be Discord ids of 17 to 20 digits with commas between them")
    return frozenset(map(int, names))


OwnerIds = Annotated[frozenset[int] | None, NoDecode, BeforeValidator(_ids)]
LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
]


class Settings(BaseSettings):
    """What the operator may choose. Each field is the variable `KILN_<FIELD>`, but for DISCORD_TOKEN."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",  # names of other programs in a shared .env; ours are checked by `unknown_names`
        frozen=True,
        populate_by_name=True,
    )

    discord_token: SecretStr | None = Field(
        default=None, validation_alias=TOKEN, description="The bot's token; only `kiln run` needs it."
    )
    weights: Folder = Field(default=DEMO_WEIGHTS, description="Folder of the model's weights.")
    loras: Folder | None = Field(
        default=None, description="Folder of LoRA files; left out: the folder loras among the weights."
    )
    data: Folder = Field(default=Path("data"), description="Folder of the database and the pictures.")
    max_waiting_per_user: int = Field(default=5, ge=1, le=100, description="Jobs one person may have waiting.")
    pictures_per_hour: int = Field(default=30, ge=1, le=3600, description="Pictures an hour for one person.")
    burst: int = Field(default=10, ge=1, le=1000, description="Pictures in a row before the hourly rate applies.")
    gpu_seconds_per_day: float = Field(
        default=0, ge=0, le=86400, description="GPU-seconds a day (UTC) for one person; 0 sets no such limit."
    )
    over_limit: OverLimit = Field(
        default=OverLimit.REFUSE,
        description="Over the hourly rate: refuse, or defer (the job waits, and others go first).",
    )
    server_share: bool = Field(
        default=False, description="Give each Discord server the same share of the GPU, whatever its size."
    )
    classifier: Folder | None = Field(
        default=None, description="Folder of a picture classifier; what it finds is posted behind a spoiler."
    )
    owner_ids: OwnerIds = Field(
        default=None, description="Discord ids of the host's owners, with commas: who may use /host."
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d{1,2})?)$",
        description="auto, cpu, mps (a Mac's graphics chip), cuda, or cuda:N for card N.",
    )
    vram_budget: Budget | None = Field(
        default=None, description="Most of the card's memory, such as 6.8GiB; left out: what is free, less half a GiB."
    )
    pinned_memory: Size | None = Field(
        default=None, description="Most of the host's memory that is locked for the card, such as 8GiB, or 0 for none."
    )
    precision: Literal["auto", "float8", "bfloat16"] = Field(
        default="auto", description="Of the streamed weights: float8, or bfloat16 when float8 looks wrong."
    )
    compile: bool = Field(
        default=True, description="Compile the model for the card: faster, with a slow first picture."
    )
    cache: Folder | None = Field(default=None, description="Folder of packed weights and compiled graphs.")
    console: bool = Field(default=False, description="Open the web console beside Discord.")
    console_host: Host = Field(
        default="127.0.0.1",
        pattern=r"^[0-9A-Za-z.:_-]{1,253}$",
        description="Where the console listens; beyond this machine only with a password.",
    )
    console_port: int = Field(default=6006, ge=1, le=65535, description="Port of the console.")
    console_password: SecretStr | None = Field(
        default=None, description="Password of the console, whose user is kiln; 8 characters or more."
    )
    quiet_hours: Hours | None = Field(
        default=None, description="Times of day such as 22:00-07:00, on this machine's clock, without drawing."
    )
    give_way: bool = Field(default=True, description="Let the card go while another program wants it.")
    temperature_max: float | None = Field(default=None, ge=30, le=110, description="Of the card, in °C.")
    power_max: float | None = Field(default=None, ge=10, le=2000, description="That the card may draw, in watts.")
    unload_after: float | None = Field(
        default=None, gt=0, le=10080, description="Minutes without a job after which the card's memory is freed."
    )
    keep_days: float | None = Field(default=None, gt=0, le=36500, description="Days that a picture's file is kept.")
    keep_size: Size | None = Field(default=None, gt=0, description="That all pictures may take on disk, such as 50GiB.")
    backups: int = Field(default=7, ge=0, le=1000, description="Daily copies of the database that are kept.")
    web: Address = Field(default="127.0.0.1:9464", description="Where health and metrics are served, or off.")
    log_level: LogLevel = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR.")
    log_format: Literal["text", "json"] = Field(default="text", description="Lines for people, or for machines.")

    @property
    def tuning(self) -> Tuning:
        """How the model is to run."""
        return Tuning(
            budget=self.vram_budget or "",
            precision=None if self.precision == "auto" else Precision(self.precision),
            compiled=self.compile,
            pinned_bytes=self.pinned_memory,
            cache=self.cache or default_cache(os.environ),
        )

    @property
    def token(self) -> str:
        """The bot's token without blanks around it; empty when there is none."""
        return self.discord_token.get_secret_value().strip() if self.discord_token else ""

    @property
    def lora_folder(self) -> Path:
        """Where LoRA files lie."""
        return self.loras or self.weights / "loras"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.data / "kiln.sqlite3"

    @property
    def limits(self) -> Limits:
        """What the queue allows one person."""
        return Limits(
            waiting_per_user=self.max_waiting_per_user,
            pictures_per_hour=self.pictures_per_hour,
            burst=self.burst,
            gpu_seconds_per_day=self.gpu_seconds_per_day,
            over_limit=self.over_limit,
        )

    @property
    def manners(self) -> Manners:
        """How Kiln makes room for the machine's owner."""
        return Manners(
            quiet=self.quiet_hours,
            gives_way=self.give_way,
            celsius_max=self.temperature_max,
            watts_max=self.power_max,
            unload_after=timedelta(minutes=self.unload_after) if self.unload_after else None,
        )

    @property
    def keeping(self) -> Keeping:
        """What is kept, and how long."""
        return Keeping(backups=self.backups, days=self.keep_days, picture_bytes=self.keep_size)

    def make_data_folder(self) -> None:
        """Make the data folder if it is not there; StartError if that is impossible."""
        try:
            self.data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"the data folder {self.data} cannot be made: {error.strerror}") from error


def variable(field: str) -> str:
    """Name the environment variable of a field of `Settings`."""
    return Settings.model_fields[field].validation_alias or PREFIX + field.upper()  # type: ignore[return-value]


def load_settings(**given: Any) -> Settings:
    """Read the settings; `given` overrules them. Raise StartError with one readable line for each mistake."""
    try:
        in_file = dotenv_values(ENV_FILE, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{ENV_FILE} cannot be read as UTF-8 text: {error}") from error
    mistakes = unknown_names(os.environ, in_file=in_file)
    if mistakes:
        raise StartError("\n".join(mistakes))
    try:
        return Settings(**given)
    except ValidationError as error:
        raise StartError("\n".join(_worded(mistake) for mistake in error.errors())) from None


def unknown_names(environment: Iterable[str], *, in_file: Iterable[str] = ()) -> list[str]:
    """Word each name that looks like one of ours and is none, with the nearest real name."""
    known = [variable(field) for field in Settings.model_fields]
    given, written = {name.upper() for name in environment}, {name.upper() for name in in_file}
    names = {name for name in given | written if name.startswith(PREFIX)}
    names |= {name for name in written if difflib.get_close_matches(name, known, cutoff=0.85)}
    if TOKEN not in given | written:  # else a name like it is another program's
        names |= {name for name in given if difflib.get_close_matches(name, [TOKEN], cutoff=0.9)}
    return [_nearest(name, known) for name in sorted(names.difference(known))]


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"the settings are {', '.join(known)}."
    return f"{name} is not a setting; {hint}"


def _worded(mistake: Any) -> str:
    """One line for one mistake of pydantic's; the value is shown unless it is the token."""
    field = str(mistake["loc"][0])
    name = field if field.isupper() else variable(field)
    said = str(mistake["msg"])
    if field == "device":
        said = "should be auto, cpu, mps, cuda or cuda:N"
    shown = "" if name in SECRETS else f" (it is {str(mistake['input'])!r})"
    return f"{name}: {said[:1].lower()}{said[1:]}{shown}."
