"""docs/configuration.md says what the code does: the same settings with the same defaults and units."""

import re
from pathlib import Path

from service.config import Duration, Known, Rate, known
from service.core.retention import duration_text

DOC = Path(__file__).parents[2] / "docs" / "configuration.md"
ROW = re.compile(r"\| `(WAYPOST_\w+)` \| (.*?) \| (.*?) \| (.*?) \|")
UNITS = {"s": "seconds", "ms": "milliseconds", "bytes": "bytes"}


def row_of(setting: Known) -> tuple[str, str]:
    """The default and the unit as the page spells them."""
    default = setting.default
    if setting.type is Duration:
        return f"`{duration_text(default)}`", "duration"
    if isinstance(default, bool):
        text = str(int(default))
    else:
        text = f"{default:g}" if isinstance(default, float) else str(default)
    unit = "per second" if setting.type is Rate else UNITS.get(setting.key.rsplit("_", 1)[-1], "")
    return (f"`{text}`" if text else "(empty)"), unit


def test_every_setting_has_its_row() -> None:
    rows = {name: (default, unit) for name, default, unit, _ in ROW.findall(DOC.read_text())}
    settings = {setting.variable: row_of(setting) for setting in known()}
    wrong = [
        f"{name}: write {settings[name]}, not {rows.get(name)}" for name in settings if rows.get(name) != settings[name]
    ]
    wrong += [f"{name}: no such setting, take the row out" for name in rows.keys() - settings.keys()]
    assert not wrong, "mend docs/configuration.md (variable, default, unit):\n" + "\n".join(wrong)


def test_every_setting_says_why() -> None:
    silent = [name for name, _, _, why in ROW.findall(DOC.read_text()) if not why.strip()]
    assert not silent, f"docs/configuration.md: say in the last column why the default of {silent} is what it is"
