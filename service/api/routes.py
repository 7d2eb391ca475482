"""The table of HTTP routes: each path once, with what each of its methods takes, answers and refuses.

What comes with every sign-in, query, body and path is added by `operations.py`. `/openapi.json` is made from this.
"""

from service.api import admin, groups, health, messages, metrics, pages, streams
from service.api.bodies import (
    Group,
    GroupSettings,
    Health,
    Member,
    Members,
    Messages,
    NewMember,
    NewMessage,
    Nodes,
    Offsets,
    Redaction,
    Sent,
    StreamFacts,
    StreamNames,
    Streams,
)
from service.api.operations import DEVICE, HISTORY, KEY, KIND, ONLY_DEVICE, PAGES, Described, at, does

LOOKS_INTO_A_GROUP = "not_allowed not_member no_group"
LOOKS_BACK = "bad_stream bad_anchor not_allowed no_group"

ROUTES: list[Described] = [
    at("/livez", GET=does(health.livez, {200: Health}, is_open=True)),
    at("/readyz", GET=does(health.readyz, {200: Health, 503: Health}, is_open=True)),
    at("/metrics", GET=does(metrics.scrape, {200: "text/plain"}, "unauthorised forbidden", is_open=True)),
    at("/openapi.json", GET=does(pages.openapi, {200: "application/json", 304: None}, is_open=True)),
    at("/asyncapi.json", GET=does(pages.asyncapi, {200: "application/json", 304: None}, is_open=True)),
    at("/docs", GET=does(pages.docs, {200: "text/html", 304: None}, is_open=True)),
    at("/docs/{file}", GET=does(pages.docs_file, {200: "*/*", 304: None}, is_open=True)),
    at(
        "/v1/messages",
        POST=does(
            messages.post,
            {201: Sent, 200: Sent},
            "bad_name bad_stream body_too_large not_allowed not_member no_group key_reused storage_full uncertain",
            takes=(KEY,),
            body=NewMessage,
        ),
    ),
    at("/v1/streams", GET=does(streams.listed, {200: Streams}, "bad_name not_allowed", takes=(DEVICE, *PAGES))),
    at(
        "/v1/streams/{stream}/messages",
        GET=does(messages.read, {200: Messages}, f"{LOOKS_BACK} not_member", takes=HISTORY),
    ),
    at(
        "/v1/streams/{stream}/messages/{id}",
        DELETE=does(messages.redact, {200: Redaction}, "bad_stream bad_id not_allowed not_member not_found uncertain"),
    ),
    at(
        "/v1/devices/{device}/offsets",
        PUT=does(
            streams.acknowledge,
            {200: Offsets},
            "bad_stream bad_id not_allowed not_member ack_beyond too_many_devices uncertain",
            body=Offsets,
        ),
    ),
    at(
        "/v1/groups/{group}",
        GET=does(groups.look, {200: Group}, LOOKS_INTO_A_GROUP),
        PUT=does(
            groups.configure,
            {200: Group, 201: Group},
            f"{LOOKS_INTO_A_GROUP} group_closed group_full too_many_streams storage_full uncertain",
            body=GroupSettings,
            is_body_optional=True,
        ),
        DELETE=does(groups.delete, {204: None}, f"{LOOKS_INTO_A_GROUP} uncertain"),
    ),
    at(
        "/v1/groups/{group}/members",
        GET=does(groups.members, {200: Members}, LOOKS_INTO_A_GROUP, takes=PAGES),
    ),
    at(
        "/v1/groups/{group}/members/{user}",
        GET=does(groups.member, {200: Member}, f"{LOOKS_INTO_A_GROUP} not_found"),
        PUT=does(
            groups.put_in,
            {200: Member, 201: Member},
            f"{LOOKS_INTO_A_GROUP} not_found group_closed group_full too_many_streams storage_full uncertain",
            body=NewMember,
            is_body_optional=True,
        ),
        DELETE=does(groups.take_out, {204: None}, "not_allowed not_member not_found uncertain"),
    ),
    at("/v1/admin/nodes", GET=does(admin.nodes, {200: Nodes}, "not_allowed")),
    at("/v1/admin/streams", GET=does(admin.streams, {200: StreamNames}, "not_allowed", takes=(KIND, *PAGES))),
    at("/v1/admin/streams/{stream}", GET=does(admin.stream, {200: StreamFacts}, "bad_stream not_allowed no_group")),
    at("/v1/admin/streams/{stream}/entries", GET=does(admin.entries, {200: Messages}, LOOKS_BACK, takes=HISTORY)),
    at(
        "/v1/admin/users/{user}/connections",
        DELETE=does(admin.disconnect, {202: None}, "not_allowed uncertain", takes=(ONLY_DEVICE,)),
    ),
]
