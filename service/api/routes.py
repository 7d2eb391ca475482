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
    Offsets,
    Redaction,
    Sent,
    StreamNames,
    Streams,
)
from service.api.operations import (
    DEVICE,
    FACTS,
    HISTORY,
    KEY,
    KIND,
    ONLY_DEVICE,
    ONLY_STREAM,
    PAGES,
    PART,
    REASON,
    SORT,
    WHAT,
    Described,
    at,
    does,
    limited,
)
from service.api.reading import LIMIT_DEFAULT
from service.inspection import Audit, Devices, JobsView, Nodes, StreamView, SurveyView, Why
from service.trimming import Plan

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
    at("/client/{file}", GET=does(pages.client_file, {200: "*/*", 304: None}, is_open=True)),
    at("/", GET=does(pages.demo, {200: "text/html", 304: None}, "no_path", is_open=True)),
    at("/demo/{file}", GET=does(pages.demo_file, {200: "*/*", 304: None}, is_open=True)),
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
        DELETE=does(
            messages.redact,
            {200: Redaction},
            "bad_stream bad_id not_allowed not_member not_found uncertain",
            takes=(REASON,),
        ),
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
        DELETE=does(groups.delete, {204: None}, f"{LOOKS_INTO_A_GROUP} uncertain", takes=(REASON,)),
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
    at(
        "/v1/admin/streams",
        GET=does(admin.streams, {200: StreamNames}, "not_allowed", takes=(KIND, PART, FACTS, *PAGES)),
    ),
    at("/v1/admin/streams/{stream}", GET=does(admin.stream, {200: StreamView}, "bad_stream not_allowed no_group")),
    at("/v1/admin/streams/{stream}/entries", GET=does(admin.entries, {200: Messages}, LOOKS_BACK, takes=HISTORY)),
    at(
        "/v1/admin/users/{user}/connections",
        DELETE=does(admin.disconnect, {202: None}, "not_allowed uncertain", takes=(ONLY_DEVICE, REASON)),
    ),
    at("/v1/admin/users/{user}/devices", GET=does(admin.devices, {200: Devices}, "not_allowed")),
    at("/v1/admin/jobs", GET=does(admin.jobs, {200: JobsView}, "not_allowed")),
    at(
        "/v1/admin/retention/plan",
        GET=does(admin.plan, {200: Plan}, "bad_stream bad_name not_allowed", takes=(ONLY_STREAM,)),
    ),
    at("/v1/admin/audit", GET=does(admin.audit, {200: Audit}, "bad_id not_allowed", takes=PAGES)),
    at("/v1/admin/why", GET=does(admin.why, {200: Why}, "bad_stream bad_name bad_id not_allowed", takes=WHAT)),
    at(
        "/v1/admin/survey",
        GET=does(admin.survey, {200: SurveyView}, "not_allowed", takes=(SORT, limited(LIMIT_DEFAULT))),
    ),
]
