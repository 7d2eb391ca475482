"""Every order of steps of small worlds: a real node, driven by hand, keeps promises 1 to 4 in each of them.

A model says what may happen and how often (see `world.py`); `explore` goes through every order of it, with the node's
own code from session to reader: attaches, pages and publishes whose answers take their time, a mailbox that loses
entries, doubt, a database that comes back with less, members who come and go. In every state what was received is a
prefix of what there is, gaps are exact, and nothing is another's; and from every state the work that is under way leads
to one where everybody has everything, is live, and is answered.

The second half takes rules out, one at a time, and shows that a model finds each of them missing. Rules that no model
can see, or that a second rule covers, are guarded elsewhere: the order of writes, tokens and the fence in
`tests/integration/store`, what a server that comes back is told in `tests/e2e/faults/test_store_rolled_back.py`, the
bounds of sockets in `tests/e2e/test_slow_clients_cost_nothing.py`, members of groups too large to announce in
`tests/integration/wire/test_news_that_come_late.py`, `must_read` for them in `tests/unit/core/test_delivery.py`.
"""

import inspect
import logging
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from service.core.delivery import Track
from service.core.paging import _Laying
from service.core.session import Session
from service.node import Node
from service.node.attach import Attachments
from service.node.memberships import Memberships
from service.node.pages import Pages
from service.node.reader import Reader
from tests.unit.node.explore import Found, explore
from tests.unit.node.world import Model

ALONE: dict[str, Any] = {"phones": "a", "there": "a"}
IN_GROUP: dict[str, Any] = {**ALONE, "members": "a z", "follows": ("user:a", "group:g")}
INBOX: dict[str, Any] = {"phones": "a", "there": "", "follows": ("user:a",), "before": ("user:a",) * 3, "page": 1}

MODELS = {
    "pages and pushes cross": Model(events={"others write user:a": 2, "a comes": 1}, **INBOX),
    "own messages": Model(events={"a sends all": 2, "others write all": 1}, **ALONE, slow=frozenset({"publish"})),
    "own messages of one who stalls": Model(
        events={"a sends all": 1, "others write all": 1, "a stalls": 1}, **ALONE, slow=frozenset({"publish", "page"})
    ),
    "own messages in doubt": Model(
        events={"a sends all": 1, "reader doubts": 1}, **ALONE, slow=frozenset({"publish", "attach"})
    ),
    "a publish without an answer": Model(
        events={"a sends all": 1, "call breaks publish": 1}, slow=frozenset({"publish"})
    ),
    "a publish that is carried out late": Model(
        events={"a sends all": 1, "call lingers publish": 1, "others write all": 1}, slow=frozenset({"publish"})
    ),
    "the mailbox loses an entry": Model(events={"others write all": 2, "mailbox skips": 1}),
    "the mailbox loses an entry of another stream": Model(
        events={"others write all": 1, "others write user:a": 1, "mailbox skips": 1}, **ALONE, follows=("all", "user:a")
    ),
    "the mailbox dies": Model(events={"others write all": 2, "mailbox dies": 1}, **ALONE),
    "doubt": Model(events={"others write all": 2, "reader doubts": 1}),
    "a registration is lost": Model(
        events={"others write all": 2, "register forgets all": 1, "clock ticks": 1}, **ALONE, audits=True
    ),
    "a socket stalls": Model(events={"others write all": 2, "a stalls": 2}),
    "a large body": Model(events={"others write all large": 1, "others write all": 1}),
    "detached after a while": Model(
        events={"a goes": 1, "a comes": 1, "others write all": 1, "clock ticks": 2},
        **ALONE,
        lingers=True,
        slow=frozenset({"attach", "detach", "page"}),
    ),
    "comes back with its offsets": Model(events={"a goes": 1, "a returns": 1, "others write all": 2}, **ALONE),
    "comes back to the server's": Model(
        events={"a acknowledges": 1, "a goes": 1, "a comes": 1, "others write all": 2}, **ALONE
    ),
    "trimmed between pages": Model(
        events={"others trim user:a 1": 1, "others trim user:a 2": 1, "a comes": 1, "others write user:a": 1}, **INBOX
    ),
    "redacted between pages": Model(
        events={"others redact user:a 2": 1, "a comes": 1, "others write user:a": 1}, **INBOX
    ),
    "a membership ends and begins": Model(
        events={"others leave a": 1, "others join a": 1, "others write group:g": 1}, **IN_GROUP
    ),
    "a membership ends while away": Model(
        events={"a goes": 1, "a returns": 1, "others leave a": 1, "others join a": 1, "others write group:g": 1},
        **IN_GROUP,
        page=1,
    ),
    "memberships begin and end elsewhere": Model(
        events={"others join a": 2, "others leave a": 2},
        **{**IN_GROUP, "members": "z"},
        slow=frozenset({"membership", "page"}),
        page=1,
    ),
    "joins and leaves": Model(
        events={"a joins": 1, "a leaves": 1, "others write group:g": 1},
        **{**IN_GROUP, "members": "z"},
        slow=frozenset({"join", "leave", "page", "attach"}),
    ),
    "leaves and joins again": Model(
        events={"a leaves": 1, "a joins": 1, "a acknowledges": 1, "others write group:g": 1},
        **IN_GROUP,
        slow=frozenset({"join", "page"}),
    ),
    "joins again while it reads": Model(
        events={"others leave a": 1, "a joins": 1, "a stalls": 1}, **IN_GROUP, slow=frozenset({"join", "page"}), page=1
    ),
    "the server comes back with less": Model(
        events={"others write all": 2, "server saves": 1, "server restarts": 1}, **ALONE
    ),
}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What goes wrong in a model goes wrong thousands of times: no line for each."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_in_every_order_of_steps_the_promises_hold(model: Model) -> None:
    assert explore(model) > len(model.events), "the model has become too small to show anything"


class Rule(NamedTuple):
    """A rule that is taken out: `text` in the source of a method becomes `instead`. `model` finds it missing."""

    says: str
    where: type
    method: str
    text: str
    instead: str
    model: str


RULES = (
    Rule(
        "a page whose head is below the position makes nobody live",
        Track,
        "page",
        " or head < position",
        "",
        "pages and pushes cross",
    ),
    Rule(
        "who is ahead of the reader drops what it has",
        Track,
        "page",
        "head == position",
        "head >= position",
        "pages and pushes cross",
    ),
    Rule(
        "what came before the attach was answered counts",
        Track,
        "attached",
        "head if self._seen is None else max(head, self._seen)",
        "head",
        "detached after a while",
    ),
    Rule(
        "in doubt a head that is not the position puts all behind",
        Track,
        "attached",
        "return self.skip_to(max(head, self.position))",
        "return []",
        "doubt",
    ),
    Rule(
        "only exactly the next one is pushed",
        Track,
        "arrived",
        "is_whole and follows(entry, position)",
        "is_whole",
        "a registration is lost",
    ),
    Rule(
        "a hole puts all behind",
        Track,
        "arrived",
        "return Step.HAD if had(entry, position) else Step.HOLE",
        "return Step.HAD",
        "a large body",
    ),
    Rule("a body by reference is read from the stream", Track, "arrived", "if is_whole and", "if", "a large body"),
    Rule(
        "who falls behind reads on from where it is",
        Track,
        "fall_behind",
        "cursor.passed = self.passed(cursor)",
        "pass",
        "a socket stalls",
    ),
    Rule(
        "a page is old news to a cursor that went on",
        Pages,
        "feed",
        "has_moved or connection.cursors.get(stream) is not cursor or connection.is_closed",
        "connection.is_closed",
        "joins and leaves",
    ),
    Rule(
        "what is known must come by within a beat",
        Attachments,
        "verify",
        "track.position < head",
        "False",
        "a registration is lost",
    ),
    Rule(
        "a new mailbox: all streams are compared",
        Attachments,
        "attach_all",
        "self._node.attached(stream, head)",
        "pass",
        "doubt",
    ),
    Rule(
        "a hole in the mailbox' dense ids is doubt",
        Reader,
        "_take",
        "if number != last + 1:",
        "if False:",
        "the mailbox loses an entry of another stream",
    ),
    Rule(
        "`sent` does not wait for an entry that has come by",
        Session,
        "_is_to_come",
        "self._is_live(stream) and (passed is None or not had(entry, passed))",
        "self._is_live(stream)",
        "own messages of one who stalls",
    ),
    Rule(
        "who falls behind is answered at once",
        Session,
        "fell_behind",
        "self._release(stream, self._passed(stream))",
        "pass",
        "own messages of one who stalls",
    ),
    Rule(
        "the own entry is the answer, in its place",
        Session,
        "own_entry",
        "if pending is None or stream != pending.stream:",
        "if True:",
        "own messages",
    ),
    Rule(
        "the answer to a joining waits for the end of the membership before",
        Session,
        "joined",
        "passed is not None and passed < entry",
        "False",
        "leaves and joins again",
    ),
    Rule(
        "with the answer to a joining the group is followed",
        Node,
        "unfollow",
        "if begins is not None:",
        "if False:",
        "leaves and joins again",
    ),
    Rule(
        "who falls behind is told of a joining where it begins",
        Session,
        "_release",
        "is_above and",
        "False and",
        "joins again while it reads",
    ),
    Rule(
        "a page that passes a joining has it answered",
        Pages,
        "feed",
        "connection.session.passed_on(stream)",
        "pass",
        "joins again while it reads",
    ),
    Rule(
        "a group's entries end with the membership",
        _Laying,
        "lay_stretch",
        "end = self.page.head if stretch.left is None else stretch.left",
        "end = self.page.head",
        "a membership ends while away",
    ),
    Rule(
        "a page on its way may be older than a joining",
        Memberships,
        "_read_once_more",
        "self._read_to_the_end(connection, stream)",
        "pass",
        "memberships begin and end elsewhere",
    ),
    Rule(
        "a membership that has ended before the group was asked is the user's all the same",
        Memberships,
        "_follow_the_group",
        "start_of_what_is_lacking(stretches, connection.session.ended.get(stream), since)",
        "stretches[-1].joined if stretches and stretches[-1].left is None else None",
        "memberships begin and end elsewhere",
    ),
    Rule("what was trimmed is announced", _Laying, "lay", "self._gap(at, to)", "pass", "trimmed between pages"),
    Rule(
        "a redacted message keeps its place",
        _Laying,
        "_fill",
        "self.items.append(_tombstone(redaction))",
        "pass",
        "redacted between pages",
    ),
)


def without(rule: Rule) -> Callable[..., object]:
    """The method without the rule."""
    method = getattr(rule.where, rule.method)
    source = textwrap.dedent(inspect.getsource(method))
    assert source.count(rule.text) == 1, f"{rule.text!r} is not in {method} any more: say the rule in its new words"
    line = next(line for line in source.splitlines() if rule.text.splitlines()[0] in line)
    indent = " " * (len(line) - len(line.lstrip()))
    found: dict[str, Callable[..., object]] = {}
    changed = source.replace(rule.text, rule.instead.replace("\n", "\n" + indent))
    exec(
        compile("from __future__ import annotations\n" + changed, "a rule taken out", "exec"),
        inspect.unwrap(method).__globals__,
        found,
    )
    return found[rule.method]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.says)
def test_a_rule_that_is_missing_is_found(monkeypatch: pytest.MonkeyPatch, rule: Rule) -> None:
    monkeypatch.setattr(rule.where, rule.method, without(rule))
    with pytest.raises(Found):
        explore(MODELS[rule.model])
