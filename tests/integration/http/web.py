"""HTTP as tests ask it: status, headers and JSON of an answer."""

import asyncio
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote, urlencode

from service.core.server_keys import Scope
from service.errors import ERRORS
from tests.integration.store.kit import Server
from tests.schemas import check_answer
from tests.service import NodeProcess
from tests.tokens import bearer, mint, new_key


class Answer(NamedTuple):
    """What came back. `json` is {} where there is no body."""

    status: int
    headers: Message
    json: dict[str, Any]


async def fetch(
    node: NodeProcess,
    path: str,
    method: str = "GET",
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Asks a node for a path, query included. What comes back is as `/openapi.json` says."""
    answer = await asyncio.to_thread(_fetch, node.url + path, method, data, headers or {}, node.trust)
    check_answer(
        method, unquote(path.partition("?")[0]), answer.status, answer.headers["content-type"] or "", answer.json
    )
    return answer


def _fetch(
    url: str, method: str, data: bytes | None, headers: Mapping[str, str], trust: ssl.SSLContext | None
) -> Answer:
    request = urllib.request.Request(url, data, dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
            return Answer(answer.status, answer.headers, json.loads(answer.read() or b"{}"))
    except urllib.error.HTTPError as refusal:
        with refusal:
            return Answer(refusal.code, refusal.headers, json.loads(refusal.read() or b"{}"))


def path_of(*parts: str) -> str:
    """`/v1/…` of these parts, each escaped."""
    return "/".join(["/v1", *(quote(part, safe=":") for part in parts)])


class Caller(NamedTuple):
    """Somebody who asks a node: a user of dev mode, or whoever has a token or a server key."""

    node: NodeProcess
    user: str | None = None
    token: str | None = None

    @classmethod
    def with_token(cls, node: NodeProcess, user: str, **claims: Any) -> Self:  # noqa: ANN401 - see `mint`
        """A user with a token."""
        return cls(node, token=mint(user, **claims))

    @classmethod
    async def with_key(cls, node: NodeProcess, database: Server, *scopes: Scope) -> Self:
        """A server with a new key."""
        key, _ = await new_key(database.url, *scopes)
        return cls(node, token=key)

    async def __call__(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        **query: Any,  # noqa: ANN401 - whatever has a text
    ) -> Answer:
        """Asks. `body` is sent as JSON, bytes as they are; `with_` of the query stands for `with`."""
        said = {name.rstrip("_"): str(value) for name, value in query.items()}
        if self.user is not None:
            said.setdefault("user", self.user)
        shown = {} if self.token is None else bearer(self.token)
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        mark = "&" if "?" in path else "?"
        where = path + (mark + urlencode(said) if said and not ("user=" in path and said.keys() == {"user"}) else "")
        return await fetch(self.node, where, method, data, {**shown, **(headers or {})})

    async def gets(self, path: str, **query: Any) -> dict[str, Any]:  # noqa: ANN401
        """Asks for something that must be there."""
        answer = await self("GET", path, **query)
        assert answer.status == 200, answer
        return answer.json

    async def walk(self, path: str, rows: str, **query: Any) -> list[list[Any]]:  # noqa: ANN401
        """The `rows` of all pages from this one on, by their links."""
        pages = [await self.gets(path, **query)]
        while (link := pages[-1]["next"]) is not None:
            pages.append(await self.gets(link))
            assert len(pages) < 500
        return [page[rows] for page in pages]

    async def put_in(self, group: str, user: str, role: str | None = None) -> dict[str, Any]:
        """Makes somebody a member, which must work."""
        answer = await self("PUT", path_of("groups", group, "members", user), {} if role is None else {"role": role})
        assert answer.status in (200, 201), answer
        return answer.json

    async def make(self, group: str, **settings: object) -> dict[str, Any]:
        """Makes a group, which must work."""
        answer = await self("PUT", path_of("groups", group), settings)
        assert answer.status == 201, answer
        return answer.json

    async def send(self, to: str, body: object, **fields: object) -> dict[str, Any]:
        """Sends a message, which must be stored."""
        answer = await self("POST", "/v1/messages", {"to": to, "body": body, **fields})
        assert answer.status in (200, 201), answer
        return answer.json


def check_problem(answer: Answer, code: str) -> None:
    """An answer is this refusal, as the table of errors has it."""
    row = ERRORS[code]
    assert (answer.json.get("code"), answer.status, answer.json.get("status")) == (code, row.http, row.http), (
        answer.json
    )
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert {"code", "title", "status", "detail", "retry"} <= answer.json.keys()
    assert answer.json["title"] == row.text
    assert (answer.headers["www-authenticate"] == "Bearer") == (row.http == 401)


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
