"""Read hardware profiles: TOML files in the shipped folder, then in the operator's.

A file's name is its profile's name. ``extends = "other"`` merges it over another: tables
key by key, anything else replaced. A later folder wins over an earlier one, and a file may
extend the one of the same name that it hides. A name that begins with ``_`` is only there
to be extended.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from edged.errors import ConfigError
from edged.hardware.schema import Profile
from edged.settings import NAME_PATTERN

__all__ = ["Profile", "Survey", "profile_folders", "read_profile", "read_profiles", "survey"]

OPERATOR_FOLDER: Final = Path("/etc/edged/hw_profiles")
_PACKAGE: Final = Path(__file__).parent.parent
_FROM_THE_FILE_NAME: Final = ("name", "path")


@dataclass(frozen=True)
class Survey:
    """Every profile that can be used, and why the others cannot, by name.

    The shipped ones first, then the operator's.
    """

    profiles: Mapping[str, Profile]
    broken: Mapping[str, ConfigError]


@dataclass(frozen=True)
class _File:
    path: Path
    text: str
    data: dict[str, Any]


def profile_folders() -> tuple[Path, ...]:
    """The shipped folder (inside the package in a wheel, beside it in a checkout), and /etc."""
    inside = _PACKAGE / "hw_profiles"
    shipped = inside if inside.is_dir() else _PACKAGE.parent / "hw_profiles"
    return (shipped, OPERATOR_FOLDER)


def survey(folders: Sequence[Path] | None = None) -> Survey:
    """Read every profile; a mistake in one costs no other."""
    folders = profile_folders() if folders is None else folders
    files = _files(folders)
    profiles: dict[str, Profile] = {}
    broken: dict[str, ConfigError] = {}
    for name in sorted(files, key=lambda each: (folders.index(files[each][-1].parent), each)):
        if name.startswith("_"):
            continue
        try:
            profiles[name] = _read(name, files)
        except ConfigError as error:
            broken[name] = error
    return Survey(profiles, broken)


def read_profiles(folders: Sequence[Path] | None = None) -> dict[str, Profile]:
    """The profiles that can be used, by name; ``survey`` tells of the others too."""
    return dict(survey(folders).profiles)


def read_profile(name: str, folders: Sequence[Path] | None = None) -> Profile:
    """One profile. ``ConfigError`` lists the known names, or gives a mistake's file and line."""
    files = _files(folders)
    if name not in files or name.startswith("_"):
        known = ", ".join(sorted(each for each in files if not each.startswith("_"))) or "none"
        raise ConfigError(f"there is no hardware profile {name}; known are: {known}")
    return _read(name, files)


def _files(folders: Sequence[Path] | None) -> dict[str, list[Path]]:
    """Name → its files, those of later folders last."""
    files: dict[str, list[Path]] = {}
    for folder in profile_folders() if folders is None else folders:
        for path in sorted(folder.glob("*.toml")):
            files.setdefault(path.stem, []).append(path)
    return files


def _read(name: str, files: Mapping[str, list[Path]]) -> Profile:
    chain = _chain(name, files)
    if not re.fullmatch(NAME_PATTERN, name):
        raise _mistake(chain[0], (), "the file's name may hold A-Z a-z 0-9 _ . - only")
    merged: dict[str, Any] = {}
    for file in reversed(chain):
        merged = _merge(merged, {key: file.data[key] for key in file.data if key != "extends"})
    for key in _FROM_THE_FILE_NAME:
        if key in merged:
            raise _mistake(_origin(chain, (key,)), (key,), "is not known")
    try:
        return Profile.model_validate({"name": name, "path": chain[0].path, **merged})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        unknown = problem["type"] == "extra_forbidden"
        what = "is not known" if unknown else problem["msg"].removeprefix("Value error, ")
        raise _mistake(_origin(chain, problem["loc"]), problem["loc"], what) from None


def _chain(name: str, files: Mapping[str, list[Path]]) -> list[_File]:
    """The file of ``name``, then what it extends, and so on upwards."""
    chain = [_read_file(files[name][-1])]
    while "extends" in chain[-1].data:
        parent = chain[-1].data["extends"]
        if not isinstance(parent, str):
            raise _mistake(chain[-1], ("extends",), "should be a profile's name")
        if parent not in files:
            known = ", ".join(sorted(files))
            raise _mistake(chain[-1], ("extends",), f"there is no {parent}; known are: {known}")
        used = [file.path for file in chain]
        left = [path for path in files[parent] if path not in used]
        if not left:
            circle = " → ".join([*(path.stem for path in used), parent])
            raise _mistake(chain[-1], ("extends",), f"goes round in a circle: {circle}")
        chain.append(_read_file(left[-1]))
    return chain


def _read_file(path: Path) -> _File:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"hardware profile {path} cannot be read: {error.strerror}") from None
    try:
        text = content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"hardware profile {path}, line {line}: it is not UTF-8") from None
    try:
        return _File(path, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        at = re.search(r" \(at line (\d+), column (\d+)\)| \(at end of document\)", str(error))
        line = int(at[1]) if at and at[1] else max(len(text.splitlines()), 1)
        column = f", column {at[2]}" if at and at[2] else ""
        what = str(error).removesuffix(at[0]) if at else str(error)
        raise ConfigError(f"hardware profile {path}, line {line}{column}: {what}") from None


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` on top of ``under``: tables key by key, anything else replaced."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        tables = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merge(below or {}, value) if tables else value
    return merged


def _mistake(file: _File, where: Sequence[int | str], what: str) -> ConfigError:
    name = ".".join(map(str, where))
    return ConfigError(
        f"hardware profile {file.path}, line {_line(file, where)}: "
        f"{name + ': ' if name else ''}{what}"
    )


def _origin(chain: Sequence[_File], where: Sequence[int | str]) -> _File:
    """The file that a key comes from: the first that holds most of the way to it."""
    return max(chain, key=lambda file: _depth(file.data, where))


def _depth(data: object, where: Sequence[int | str]) -> int:
    """How many steps of ``where`` there are in ``data``."""
    for steps, part in enumerate(where):
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if not inside:
            return steps
        data = data[part]  # type: ignore[index]  # just seen to hold it
    return len(where)


def _line(file: _File, where: Sequence[int | str]) -> int:
    """The line of a key, or of the table that lacks it, counted from 1.

    tomllib keeps no positions. But a file cut off after any whole statement is TOML again,
    so the statement that brings the key is the one whose end makes it appear.
    """
    wanted = _depth(file.data, where)
    if wanted == 0:
        return 1
    lines = file.text.split("\n")
    begins = 0
    for ends in range(1, len(lines) + 1):
        try:
            data = tomllib.loads("\n".join(lines[:ends]))
        except tomllib.TOMLDecodeError:
            continue  # in the midst of a value of several lines
        if _depth(data, where) == wanted:
            break
        begins = ends
    return begins + 1
