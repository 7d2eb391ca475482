"""Settings: what can be chosen, and how it is read; nobody else reads the environment.

Every setting is an environment variable (`WAYPOST_PORT`, `WAYPOST_LIMITS_BODY_BYTES`) and a key of the TOML file
that `WAYPOST_CONFIG` names (`port`, and `body_bytes` in the table `limits`). The environment wins; a variable that
is empty counts as not given. `docs/configuration.md` has a row for each, checked by a test. Retention policies are
lists, and stand in the file alone.
"""

import difflib
import os
import socket
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from service.config import tls
from service.config.contradictions import contradictions, wrong_schedule
from service.config.settings import (
    PREFIX,
    PROCESSES_MAX,
    Bytes,
    Count,
    Duration,
    Jobs,
    Limits,
    Rate,
    Retention,
    Schedule,
    Seconds,
    Settings,
)
from service.core import retention

__all__ = [
    "JOBS",
    "PREFIX",
    "PROCESSES_MAX",
    "RATES",
    "Bytes",
    "Count",
    "Duration",
    "Jobs",
    "Known",
    "Limits",
    "Rate",
    "Retention",
    "Schedule",
    "Seconds",
    "Settings",
    "SettingsError",
    "known",
    "load",
]


class SettingsError(Exception):
    """Settings that cannot be used. `lines` says everything that is wrong, one line each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


# The limits that are off in dev mode unless they are set: whoever tries things out measures, and loops.
RATES = tuple(name for name, kind in get_type_hints(Limits, include_extras=True).items() if kind is Rate)
JOBS = tuple(field.name for field in msgspec.structs.fields(Jobs))
# The tables that a TOML file may have, "" for its top level, and what is in them.
TABLES: dict[str, msgspec.Struct] = {
    "": Settings(),
    "limits": Limits(),
    "retention": Retention(),
    **{f"jobs.{job}": getattr(Jobs(), job) for job in JOBS},
}


class Known(msgspec.Struct, frozen=True):
    """One setting as a user writes it: its variable, its table ("" for none) and key in TOML, its type and default."""

    variable: str
    table: str
    key: str
    type: Any
    default: Any


def known() -> Iterator[Known]:
    """Every setting there is, in the order of the classes above."""
    for table, defaults in TABLES.items():
        hints = get_type_hints(type(defaults), include_extras=True)
        for name in defaults.__struct_fields__:
            if name not in ("limits", "jobs", "policies") and (table, name) != ("", "retention"):
                prefix = PREFIX + (f"{table.replace('.', '_')}_" if table else "").upper()
                yield Known(prefix + name.upper(), table, name, hints[name], getattr(defaults, name))


def load(environ: Mapping[str, str], *, dev_default: bool = False, is_serving: bool = False) -> Settings:
    """The settings that `environ` and the file it names give.

    `dev_default` is `dev` where nobody chose it. `is_serving`: the certificate is going to be used, so it is looked at;
    other commands may not be allowed to read its key. NO_COLOR takes the colours from the log, as everywhere. Raises
    `SettingsError` with everything that is wrong.
    """
    wrong: list[str] = []
    given = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value}
    path = given.get(PREFIX + "CONFIG", "")
    tables = _read_file(path, wrong) if path else {}
    settings = {setting.variable: setting for setting in known()}
    wrong += [_unknown(name, settings) for name in sorted(given.keys() - settings.keys())]

    values: dict[str, dict[str, Any]] = {table: {} for table in TABLES}
    values[""]["dev"] = dev_default
    for variable, setting in settings.items():
        in_file = tables.get(setting.table, {})
        if variable in given:
            where, raw, is_text = variable, given[variable], True
        elif setting.key in in_file:
            where, raw, is_text = f"{path}: {_dotted(setting)}", in_file[setting.key], False
        else:
            continue
        try:
            values[setting.table][setting.key] = _convert(raw, setting.type, is_text=is_text)
        except msgspec.ValidationError as error:
            wrong.append(f"{where}: {_plain(error, setting.type, is_text=is_text)}")
    if environ.get("NO_COLOR") and values[""].get("log_format", "auto") == "auto":
        values[""]["log_format"] = "text"
    if values[""]["dev"]:
        values["limits"] = {**dict.fromkeys(RATES, 0.0), **values["limits"]}
    wrong += [line for job in JOBS for line in wrong_schedule(job, values[f"jobs.{job}"])]
    policies, lines = retention.read_policies(tables.get("retention", {}).get("policies", ()), path)
    wrong += lines
    settings_made = _made(values, policies)
    wrong += contradictions(settings_made)
    if is_serving:
        wrong += tls.wrong(settings_made)
    if wrong:
        raise SettingsError(wrong)
    return msgspec.structs.replace(
        settings_made, node=settings_made.node or _default_node(), url=settings_made.url or _default_url(settings_made)
    )


def _made(values: Mapping[str, Mapping[str, Any]], policies: tuple[retention.Policy, ...]) -> Settings:
    """The settings of what was given, table by table."""
    made: dict[str, Any] = {
        table: msgspec.structs.replace(defaults, **values[table]) for table, defaults in TABLES.items()
    }
    settings: Settings = msgspec.structs.replace(
        made[""],
        limits=made["limits"],
        retention=msgspec.structs.replace(made["retention"], policies=policies),
        jobs=Jobs(**{job: made[f"jobs.{job}"] for job in JOBS}),
    )
    return settings


def _read_file(path: str, wrong: list[str]) -> dict[str, dict[str, Any]]:
    """Table → key → value of the TOML file, what is at top level under "". Adds to `wrong` what cannot be used."""
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        wrong.append(f"{PREFIX}CONFIG: cannot read {path}: {reason}")
        return {}
    tables = _tables(content, path, wrong)
    policies = tables.get("retention", {}).get("policies", [])
    if not isinstance(policies, list):
        wrong.append(f"{path}: retention.policies: Expected a list of tables, [[retention.policies]]")
        del tables["retention"]["policies"]
    names = {_dotted(setting) for setting in known() if setting.variable != PREFIX + "CONFIG"} | {"retention.policies"}
    for table, entries in tables.items():
        for key in entries:
            dotted = f"{table}.{key}" if table else key
            if dotted not in names:
                near = difflib.get_close_matches(dotted, [*names, *TABLES], 1)
                wrong.append(f"{path}: {dotted}: no such setting" + (f"; did you mean {near[0]}?" if near else ""))
    return tables


def _tables(content: Mapping[str, Any], path: str, wrong: list[str]) -> dict[str, dict[str, Any]]:
    """The tables of a file by their dotted names, whether there are such or not."""
    tables: dict[str, dict[str, Any]] = {"": {}}
    for key, value in content.items():
        if key not in ("limits", "retention", "jobs"):
            tables[""][key] = value
        elif not isinstance(value, dict):
            wrong.append(f"{path}: {key}: Expected a table, [{key}]")
        elif key != "jobs":
            tables[key] = value
        else:
            for job, schedule in value.items():
                if job in JOBS and not isinstance(schedule, dict):
                    wrong.append(f"{path}: jobs.{job}: Expected a table, [jobs.{job}]")
                elif job in JOBS:
                    tables[f"jobs.{job}"] = schedule
                else:
                    wrong.append(f"{path}: jobs.{job}: no such job; there are {', '.join(JOBS)}")
    return tables


def _dotted(setting: Known) -> str:
    return f"{setting.table}.{setting.key}" if setting.table else setting.key


def _unknown(variable: str, settings: Mapping[str, Known]) -> str:
    near = difflib.get_close_matches(variable, settings, 1)
    return f"{variable}: no such setting" + (f"; did you mean {near[0]}?" if near else "")


def _convert(raw: object, kind: object, *, is_text: bool) -> object:
    """`raw` as `kind`, bounds checked. Text from the environment may spell a number or a yes and no."""
    if is_text and kind is bool:
        raw = {
            "1": True,
            "true": True,
            "yes": True,
            "on": True,
            "0": False,
            "false": False,
            "no": False,
            "off": False,
        }.get(str(raw).lower(), raw)
        if not isinstance(raw, bool):
            raise msgspec.ValidationError("Expected 1 or 0")
    if kind is Duration:
        try:
            return retention.parse_duration(raw)
        except ValueError as error:
            raise msgspec.ValidationError(str(error)) from error
    return msgspec.convert(raw, kind, strict=not is_text)


def _plain(error: msgspec.ValidationError, kind: object, *, is_text: bool) -> str:
    """What was expected. What was given is not repeated: it may hold a password."""
    if get_origin(kind) is Literal:
        return f"Expected one of {', '.join(get_args(kind))}"
    words = str(error).replace("`", "")
    # In the environment everything is text.
    return words.removesuffix(", got str") if is_text else words


def _default_node() -> str:
    """Host name and process id, with whatever a name may not hold replaced."""
    host = "".join(char if char.isascii() and char.isalnum() else "-" for char in socket.gethostname())
    return f"{host[:100] or 'node'}-{os.getpid()}"


def _default_url(settings: Settings) -> str:
    """Where a client on this machine reaches the node: an address that stands for all of them is not one to call."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    scheme = "https" if settings.ssl_certfile else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"
