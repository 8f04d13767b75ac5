"""Read and validate the YAML files of tables and claims; errors name the file and the place."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ..errors import UsageError, nearest
from ..paths import conf_files

Checked = TypeVar("Checked", bound=BaseModel)


def _number(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,20}(\.[0-9]{1,20})?(e[0-9]{1,2})?", text):
        raise ValueError(f"{text!r} is not a number such as 2.51e6 or 67.97")
    return text


Number = Annotated[str, AfterValidator(_number)]  # as printed


class Strict(BaseModel):
    """A mapping of a YAML file: unknown keys and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def known(what: str, words: Callable[[], tuple[str, ...]]) -> AfterValidator:
    """A validator that admits certain words alone; its message names the nearest one."""

    def check(word: str) -> str:
        if word not in words():
            raise ValueError(f"no {what} {word!r}{nearest(word, words())}")
        return word

    return AfterValidator(check)


def options(group: str) -> tuple[str, ...]:
    """The names of the files of a group, those of --config-dir among them."""
    return tuple(sorted(conf_files(group)))


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises UsageError where it cannot be read."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None
    except Exception as error:  # PyYAML also raises ValueError (day 99) or RecursionError
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())[:300]}") from None


def validated(model: type[Checked], value: Any, where: str) -> Checked:
    """A part of a file, validated. Raises UsageError for the first problem, at `where`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    if problem["type"] == "extra_forbidden":
        raise UsageError(
            f"{where}: unknown key or column {key!r}{nearest(key, model.model_fields)}"
        )
    reason = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "string_type" and isinstance(problem["input"], bool | int | float):
        word = "no, yes, on, off, true, false and numbers"
        reason = f'put it in quotes, as in "no" or "1.0": YAML reads {word} as values'
    raise UsageError(f"{where}: {key}: {reason}" if key else f"{where}: {reason}")
