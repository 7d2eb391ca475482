"""Whatever /openapi.json allows, and some of what it does not: no error of ours, and every answer as described.

Schemathesis makes the requests, each run the same ones; a failure prints the request as a curl command.
"""

import asyncio
import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode, openapi
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.store.kit import Server
from tests.schemas import document
from tests.service import NodeProcess
from tests.tokens import bearer, mint, new_key

EXAMPLES = 20  # of each operation at each door, of which half are not what the document allows
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def operations() -> Iterator[APIOperation[Any, Any, Any, Any]]:
    """All of them, without the ways to sign in: the door knows one, and made-up tokens would be all that is tried."""
    open_to_all = copy.deepcopy(document())
    del open_to_all["components"]["securitySchemes"]
    del open_to_all["paths"]["/v1/events"]  # an answer without an end; tests/integration/sse has its own
    for methods in open_to_all["paths"].values():
        for operation in methods.values():
            del operation["security"]
    for found in openapi.from_dict(open_to_all).get_all_operations():
        assert isinstance(found, Ok), found
        yield found.ok()


OPERATIONS = {found.label: found for found in operations()}
# What there is: else nearly all that is asked for would be strangers'.
KNOWN: dict[str, Any] = {"stream": "group:fuzz", "group": "fuzz", "user": "fuzz", "device": "phone", "id": "1-1"}
KNOWN_IN_BODIES: dict[str, Any] = {"to": "group:fuzz", "from": "fuzz", "key": None, "offsets": {"all": "0-0"}}


class Door(NamedTuple):
    """Where requests go, and what they show."""

    node: NodeProcess
    session: requests.Session
    query: dict[str, str]
    headers: dict[str, str]

    def check(self, case: Case[Any]) -> None:
        case.call_and_validate(
            base_url=self.node.url, session=self.session, checks=CHECKS, params=self.query, headers=self.headers
        )


@pytest.fixture(params=["dev mode", "a token", "a server key"])
def door(request: pytest.FixtureRequest, node: NodeProcess, signed: NodeProcess, database: Server) -> Iterator[Door]:
    with requests.Session() as session:
        if request.param == "dev mode":
            door = Door(node, session, {"user": "fuzz"}, {})
        elif request.param == "a token":
            door = Door(signed, session, {}, bearer(mint("fuzz", broadcast=True)))
        else:
            key, _ = asyncio.run(new_key(database.url, "send", "read", "groups", "admin"))
            door = Door(signed, session, {"user": "fuzz"}, bearer(key))
        where = f"{door.node.url}/v1/groups/fuzz/members/fuzz"
        made = session.put(where, params=door.query, headers=door.headers, timeout=10)
        assert made.status_code in (200, 201), made.text
        yield door


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_as_described(door: Door, label: str) -> None:
    operation = OPERATIONS[label]
    cases = operation.as_strategy(GenerationMode.POSITIVE)
    if any(True for _ in operation.iter_parameters()) or operation.body:
        cases |= operation.as_strategy(GenerationMode.NEGATIVE)

    @given(case=cases, is_known=st.booleans())
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Case[Any], *, is_known: bool) -> None:
        if is_known:
            case.path_parameters.update({name: KNOWN[name] for name in case.path_parameters if name in KNOWN})
            if isinstance(case.body, dict):
                case.body.update({name: KNOWN_IN_BODIES[name] for name in case.body if name in KNOWN_IN_BODIES})
        door.check(case)

    ask()
