"""docs/http.md says what the code does: paths and their methods, and examples that the bodies of the code take."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.routing import Route

from service.api.bodies import ANSWERS, REQUESTS
from service.app import HTTP_ROUTES
from service.core import frames
from service.errors import ERRORS

TEXT = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(/[^`]*)` \| ([A-Z, ]+) \|", re.MULTILINE)
EXAMPLE = re.compile(r"^```http\n([A-Z]+) (\S+)\n(?:(\{.*\})\n)?→ (\d{3})\n(?:(\{.*\})\n)?```$", re.MULTILINE)
EXAMPLES = [found.groups() for found in EXAMPLE.finditer(TEXT)]


def methods_of(route: Route) -> set[str]:
    return set(route.methods or ()) - {"HEAD"}


def names_of(kind: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(kind)}


def takes(kind: type[msgspec.Struct], text: str) -> bool:
    """Whether this is such a body, without a field that it does not know."""
    given: dict[str, Any] = msgspec.json.decode(text)
    try:
        msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError:
        return False
    return given.keys() <= names_of(kind)


def test_the_table_has_every_path_with_its_methods() -> None:
    said = {path: set(methods.split(", ")) for path, methods in ROW.findall(TEXT)}
    code = {route.path.replace("{", "<").replace("}", ">"): methods_of(route) for route in HTTP_ROUTES}
    wrong = [f"write `{path}` | {', '.join(sorted(code[path]))}" for path in code if said.get(path) != code[path]]
    wrong += [f"there is no path `{path}`, take its row out" for path in said.keys() - code.keys()]
    assert not wrong, "mend the table in docs/http.md:\n" + "\n".join(wrong)


def test_no_example_is_overlooked() -> None:
    assert len(EXAMPLES) == TEXT.count("```http"), (
        "docs/http.md: an example is METHOD and path, perhaps a body, → and the status, perhaps an answer"
    )


@pytest.mark.parametrize(("method", "path", "body", "status", "answer"), EXAMPLES)
def test_an_example_is_one(method: str, path: str, body: str | None, *, status: str, answer: str | None) -> None:
    here = path.partition("?")[0]
    assert any(route.path_regex.fullmatch(here) and method in methods_of(route) for route in HTTP_ROUTES), (
        f"docs/http.md: there is no {method} {here}"
    )
    is_refused = int(status) >= 400
    assert body is None or is_refused or any(takes(kind, body) for kind in REQUESTS), f"mend {body} in docs/http.md"
    assert (answer is None) == (status in ("202", "204"))
    assert answer is None or any(takes(kind, answer) for kind in ANSWERS), f"mend {answer} in docs/http.md"


def test_every_method_that_answers_rows_has_an_example() -> None:
    shown = {(method, path.partition("?")[0]) for method, path, *_ in EXAMPLES}
    described = {path for path, _ in ROW.findall(TEXT)}
    lacking = [
        f"{method} {route.path}"
        for route in HTTP_ROUTES
        for method in methods_of(route)
        if not any(method == given and route.path_regex.fullmatch(path) for given, path in shown)
        and f"`{method} {route.path.replace('{', '<').replace('}', '>')}" not in TEXT
        and route.path not in ("/livez", "/readyz")
    ]
    assert described
    assert not lacking, f"show or describe {lacking} in docs/http.md"


def test_codes_that_it_names_exist() -> None:
    cells = re.findall(r"^\| (\d{3} .*?) \|", TEXT, re.MULTILINE)
    assert cells
    for cell in cells:
        status = ""
        for part in re.findall(r"(\d{3})|`(\w+)`", cell):
            status = part[0] or status
            code = part[1]
            assert not code or str(ERRORS[code].http) == status, f"docs/http.md: `{code}` is not {status}"


def test_history_has_the_fields_of_the_frame() -> None:
    [messages] = [kind for kind in ANSWERS if kind.__name__ == "Messages"]
    assert names_of(messages) - {"next", "prev"} == names_of(frames.History) - {"ref"}
