"""HTTP as tests ask it: status, headers and JSON of an answer."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from tests.service import NodeProcess


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    json: dict[str, Any]


async def fetch(node: NodeProcess, path: str, method: str = "GET") -> Answer:
    """Asks a node for a path, query included."""
    return await asyncio.to_thread(_fetch, node.url + path, method)


def _fetch(url: str, method: str) -> Answer:
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return Answer(answer.status, dict(answer.headers), json.load(answer))
    except urllib.error.HTTPError as refusal:
        with refusal:
            return Answer(refusal.code, dict(refusal.headers), json.load(refusal))


def messages_path(stream: str, user: str | None, **query: object) -> str:
    """The path of a look into a stream (`with_` for `with`)."""
    given = {} if user is None else {"user": user}
    given |= {name.rstrip("_"): str(value) for name, value in query.items()}
    return f"/v1/streams/{quote(stream, safe='')}/messages?{urlencode(given)}"


async def look(node: NodeProcess, stream: str, user: str, **query: object) -> dict[str, Any]:
    """A page of history, which must be answered."""
    answer = await fetch(node, messages_path(stream, user, **query))
    assert answer.status == 200, answer
    return answer.json


async def redact(node: NodeProcess, stream: str, entry: str, user: str) -> Answer:
    """Takes a message away."""
    path = f"/v1/streams/{quote(stream, safe='')}/messages/{entry}?{urlencode({'user': user})}"
    return await fetch(node, path, "DELETE")
