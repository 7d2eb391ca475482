"""docs/protocol.md says what the code does: frames and their fields, examples, limits, errors; docs/errors.md the error
codes, docs/chat.md the texts of /chat, docs/http.md the paths.
"""

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from starlette.routing import BaseRoute

from service.app import CONVERSATIONS, HTTP_ROUTES
from service.config import Limits as Settings
from service.core import frames
from service.core.commands import Limits
from service.core.entries import Entry
from service.core.frames import CLIENT_FRAMES, Malformed, ServerFrame
from service.core.names import EntryId
from service.errors import ERRORS
from service.transports import chat

DOC = Path(__file__).parents[2] / "docs" / "protocol.md"
TEXT = DOC.read_text(encoding="utf-8")
CHAT = DOC.with_name("chat.md").read_text(encoding="utf-8")
ERROR_CODES = DOC.with_name("errors.md").read_text(encoding="utf-8")
HTTP = DOC.with_name("http.md").read_text(encoding="utf-8")
LINES_MAX = 500


def tag_of(kind: type[msgspec.Struct]) -> str:
    return str(kind.__struct_config__.tag)


CLIENT = {tag_of(kind): kind for kind in CLIENT_FRAMES}
SERVER: dict[str, type[msgspec.Struct]] = {tag_of(kind): kind for kind in get_args(ServerFrame)}
PARTS: dict[str, type[msgspec.Struct]] = {"state": frames.StreamState, "cause": frames.Cause}


def section(title: str, level: str = "##") -> str:
    """What stands under a heading, up to the next of its level."""
    found = re.search(
        rf"^{level} {re.escape(title)}\n(.*?)(?=^#{{2,{len(level)}}} |\Z)", TEXT, re.MULTILINE | re.DOTALL
    )
    assert found, f'add a heading "{level} {title}" to docs/protocol.md'
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The rows of the tables in `text`, heads and rules left out."""
    found = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in re.findall(r"^\|.*\|$", text, re.MULTILINE)
    ]
    return [row for row in found if row[0].startswith("`")]


def tables(title: str) -> dict[tuple[str, ...], list[list[str]]]:
    """Of the section `title`: the tags of each heading, and the rows of the fields below it."""
    parts = re.split(r"^### (.*)\n", section(title), flags=re.MULTILINE)
    return {
        tuple(re.findall(r"`(\w+)`", heading)): rows(re.split(r"^\| field of ", body, flags=re.MULTILINE)[0])
        for heading, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def documented(table: list[list[str]]) -> dict[str, str]:
    """Field → what its third column says. A row may name several fields."""
    return {name: row[2] for row in table for name in re.findall(r"`(\w+)`", row[0])}


def wrong_fields(where: str, kinds: dict[str, type[msgspec.Struct]], said: dict[str, str]) -> list[str]:
    """What a table of fields says that is not so. `in `tag`` in its third column: required, or always, there alone."""
    wrong = []
    known: set[str] = set()
    for tag, kind in kinds.items():
        for field in msgspec.structs.fields(kind):
            name = field.encode_name
            known.add(name)
            column = said.get(name)
            is_said = column == "yes" or (column is not None and f"`{tag}`" in column)
            if column is None:
                wrong.append(f"add a row `{name}` to the table of {where}")
            elif is_said != field.required:
                wrong.append(f"{where}, row `{name}`: the third column is to say {'yes' if field.required else 'no'}")
    return wrong + [f"{where}: there is no field `{name}`, take its row out" for name in said.keys() - known]


@pytest.mark.parametrize(("title", "structs"), [("Client frames", CLIENT), ("Server frames", SERVER)])
def test_every_frame_has_its_section_and_every_field_its_row(
    title: str, structs: dict[str, type[msgspec.Struct]]
) -> None:
    found = tables(title)
    headings = [tag for tags in found for tag in tags]
    wrong = [f'add a heading "### `{tag}`" under "{title}"' for tag in structs if tag not in headings]
    wrong += [f"there is no frame `{tag}`, take its heading out" for tag in headings if tag not in structs]
    assert not wrong, "mend docs/protocol.md:\n" + "\n".join(wrong)
    for tags, table in found.items():
        wrong += wrong_fields(" and ".join(tags), {tag: structs[tag] for tag in tags}, documented(table))
    assert not wrong, "mend docs/protocol.md:\n" + "\n".join(wrong)


@pytest.mark.parametrize("part", PARTS)
def test_every_field_of_a_part_has_its_row(part: str) -> None:
    found = re.search(rf"^\| field of a {part} .*\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert found, f'add a table "field of a {part}" to docs/protocol.md'
    wrong = wrong_fields(f"a {part}", {part: PARTS[part]}, documented(rows(found[1])))
    assert not wrong, "mend docs/protocol.md:\n" + "\n".join(wrong)


def examples() -> dict[str, list[str]]:
    """The frames that the page shows: those a client says, and those a server says."""
    inline = {title: re.findall(r'`(\{"type":.*?\})`', section(title)) for title in ("Client frames", "Server frames")}
    return {
        "client": inline["Client frames"] + re.findall(r"^→ (.*)$", TEXT, re.MULTILINE),
        "server": inline["Server frames"] + re.findall(r"^← (.*)$", TEXT, re.MULTILINE),
    }


def unknown_names(given: dict[str, Any], kind: type[msgspec.Struct]) -> set[str]:
    return given.keys() - {"type"} - {field.encode_name for field in msgspec.structs.fields(kind)}


def test_no_example_is_overlooked() -> None:
    frames_shown = len(re.findall(r'(?<![\[,])\{"type":', TEXT))  # those that do not lie within another
    assert sum(map(len, examples().values())) == frames_shown, (
        'docs/protocol.md: show a frame as `{"type":…}` under its heading, or on a line that begins with → or ←'
    )


def test_examples_of_client_frames_decode() -> None:
    shown = set()
    for line in examples()["client"]:
        [frame] = frames.decode(line.encode())
        assert not isinstance(frame, Malformed), f"mend the example in docs/protocol.md: {line}: {frame}"
        unknown = unknown_names(msgspec.json.decode(line), type(frame))
        assert not unknown, f"docs/protocol.md: no such field {unknown} in {line}"
        shown.add(tag_of(type(frame)))
    assert shown == CLIENT.keys(), f"add an example of {CLIENT.keys() - shown} to docs/protocol.md"


def test_examples_of_server_frames_decode() -> None:
    shown = set()
    for line in examples()["server"]:
        given: dict[str, Any] = msgspec.json.decode(line)
        tag = given["type"]
        assert tag in SERVER, f"docs/protocol.md: no frame `{tag}` exists: {line}"
        try:
            msgspec.json.decode(line, type=SERVER[tag])
        except msgspec.ValidationError as problem:
            pytest.fail(f"mend the example in docs/protocol.md: {line}: {problem}")
        parts: list[tuple[type[msgspec.Struct], dict[str, Any]]]
        parts = [(frames.StreamState, state) for state in given.get("streams", {}).values()]
        parts += [(frames.Cause, cause) for cause in (*given.get("causes", ()), *filter(None, [given.get("cause")]))]
        parts += [(SERVER[frame["type"]], frame) for frame in (*given.get("messages", ()), *given.get("gaps", ()))]
        parts.append((SERVER[tag], given))
        for kind, part in parts:
            assert not unknown_names(part, kind), f"docs/protocol.md: no such field {unknown_names(part, kind)}: {line}"
        shown.add(tag)
    assert shown == SERVER.keys(), f"add an example of {SERVER.keys() - shown} to docs/protocol.md"


def test_limits_are_those_of_welcome_with_their_defaults() -> None:
    said = {row[0].strip("`"): row[1] for row in rows(section("Limits"))}
    defaults = msgspec.structs.asdict(Settings())
    limits = {field.name: str(defaults[field.name]) for field in msgspec.structs.fields(Limits)}
    wrong = [f"write `{name}` | {value}" for name, value in limits.items() if said.get(name) != value]
    wrong += [f"there is no limit `{name}`, take its row out" for name in said.keys() - limits.keys()]
    assert not wrong, "mend the limits in docs/protocol.md:\n" + "\n".join(wrong)


def test_error_codes_are_those_of_the_table() -> None:
    said = {row[0].strip("`"): row[1:] for row in rows(ERROR_CODES)}
    codes = {
        code: [row.text, str(row.http), "–" if row.close is None else str(row.close), "yes" if row.retry else "no"]
        for code, row in ERRORS.items()
    }
    wrong = [
        f"{'write' if code in said else 'add'} the row | `{code}` | {' | '.join(row)} |"
        for code, row in codes.items()
        if said.get(code) != row
    ]
    wrong += [f"there is no code `{code}`, take its row out" for code in said.keys() - codes.keys()]
    assert not wrong, "mend the error codes in docs/protocol.md:\n" + "\n".join(wrong)
    assert list(said) == list(codes), "docs/protocol.md: give the error codes the order of service/errors.py"


def chat_texts() -> list[str]:
    """What the /chat codec says, without the two bytes before a short WebSocket frame."""
    at = EntryId(1, 1)
    made = [
        chat.entry_text("user:bob", Entry(at, "message", "alice", "user:bob", body=b'"hi"')),
        chat.entry_text("group:g1", Entry(at, "message", "alice", "group:g1", body=b'"Hi All"')),
        chat.entry_text("all", Entry(at, "message", "alice", "all", body=b'"Hello All"')),
        chat.entry_text("group:g1", Entry(at, "joined", "alice", "group:g1")),
    ]
    for user, answer in (
        ("alice", frames.Joined("group:g1", "1-1", "alice", "g1", 1)),
        ("bob", frames.Error("no_group", "", retry=False, ref=1)),
        ("bob", frames.Error("not_member", "", retry=False, ref=1)),
    ):
        codec = chat.ChatCodec(user)
        codec.ref("g1")
        made.append(codec.frame(answer))
    return [frame[2:].decode() for frame in made]


def test_chat_texts_are_to_the_letter() -> None:
    missing = [text for text in chat_texts() if f"`{text}`" not in CHAT]
    assert not missing, f"add these texts to docs/chat.md, to the letter: {missing}"


def test_chat_calls_are_understood() -> None:
    calls = re.search(r"^```chat\n(.*?)^```", CHAT, re.MULTILINE | re.DOTALL)
    assert calls, "add the four calls of /chat/channel to docs/chat.md, in a ```chat block"
    methods = [msgspec.json.decode(line)["Method"] for line in calls[1].splitlines()]
    assert methods == ["One", "UserGroup", "Group", "All"], "docs/chat.md: show each call of /chat/channel once"


@pytest.mark.parametrize(
    ("routes", "text", "page"),
    [(CONVERSATIONS, TEXT + CHAT, "docs/protocol.md or docs/chat.md"), (HTTP_ROUTES, HTTP, "docs/http.md")],
)
def test_every_path_is_named(routes: list[BaseRoute], text: str, page: str) -> None:
    paths = [str(getattr(route, "path", "")).replace("{", "<").replace("}", ">") for route in routes]
    missing = [path for path in paths if f"{path}`" not in text]
    assert not missing, f"add the paths {missing} to {page}"


def test_the_page_can_be_read_in_one_sitting() -> None:
    lines = len(TEXT.splitlines())
    assert lines <= LINES_MAX, f"docs/protocol.md has {lines} lines, {LINES_MAX} is the wall: say it shorter"
