"""Names and entry ids: what is taken, what is refused, how ids compare."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.names import (
    NAME_LENGTH_MAX,
    EntryId,
    check_name,
    follows,
    group_of,
    group_stream,
    had,
    parse_id,
    parse_stream,
    user_stream,
)
from service.errors import WaypostError


def refusal(function: object, text: str) -> str:
    """The code that `function(text)` is refused with."""
    assert callable(function)
    with pytest.raises(WaypostError) as caught:
        function(text)
    return caught.value.code


GOOD_NAMES = {
    "one character": "a",
    "one digit": "7",
    "every sign that is allowed": "a._-~@+:|",
    "a sign alone": ":",
    "three dots": "...",
    "a dot in front": ".hidden",
    "an e-mail address": "ann+work@example.org",
    "an identity with a bar": "auth0|5f7c8ec7c33c6c004bbafe82",
    "as long as may be": "x" * 128,
    "as long as may be, not ASCII": "ж" * 128,
    "outside the basic plane, counted as one each": "𠜎" * 128,
    "precomposed": "Zoë",
    "Greek": "Ωμέγα",
    "Japanese, with a length mark": "ユーザー",
    "Hangul syllables": "한글",
    "Arabic": "محمد",
    "digits of another script": "٣٤٥",
    "mathematical letters": "𝔞𝔟",  # noqa: RUF001 - the point
}

BAD_NAMES = {
    "empty": "",
    "too long": "x" * 129,
    "too long, not ASCII": "ж" * 129,
    "a dot": ".",
    "two dots": "..",
    "a slash": "a/b",
    "a slash alone": "/",
    "a backslash": "a\\b",
    "a blank": "a b",
    "a blank at the end": "a ",
    "a no-break space": "a\u00a0b",
    "a line break": "a\nb",
    "a line break at the end": "a\n",
    "NUL": "a\0",
    "braces, which would move a key": "{a}",
    "a star": "*",
    "a percent sign": "100%",
    "a comma": "a,b",
    "a semicolon": "a;b",
    "decomposed": unicodedata.normalize("NFD", "Zoë"),
    "decomposed Hangul": unicodedata.normalize("NFD", "한글"),
    "the Ångström sign, which is not NFC": "\u212b",
    "a combining mark where no composed letter exists": "x\u0302",
    "a vowel sign": "हिन्दी",
    "a zero-width joiner": "a\u200db",
    "a zero-width space": "a\u200bb",
    "right-to-left override": "a\u202eb",
    "emoji": "😀",
    "keycap": "1\ufe0f\u20e3",
    "a fraction": "½",
    "a superscript": "x²",
    "a Roman numeral": "Ⅷ",
    "a circled number": "①",
    "half of a surrogate pair": "\ud83d",
    "private use": "\ue000",
    "not assigned": "\U000e0fff",
    "a full-width slash": "a／b",  # noqa: RUF001 - the point
    "a middle dot": "a·b",
    "currency": "€",
}


@pytest.mark.parametrize("name", GOOD_NAMES.values(), ids=GOOD_NAMES)
def test_a_good_name_is_given_back_as_it_is(name: str) -> None:
    assert check_name(name) is name


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_bad_name_is_refused(name: str) -> None:
    assert refusal(check_name, name) == "bad_name"


@settings(derandomize=True, max_examples=300)
@given(st.text(max_size=140))
def test_what_is_taken_for_a_name_is_letters_and_digits_in_one_spelling(text: str) -> None:
    try:
        check_name(text)
    except WaypostError:
        return
    assert 1 <= len(text) <= NAME_LENGTH_MAX
    assert unicodedata.normalize("NFC", text) == text
    assert all(c in "._-~@+:|" or unicodedata.category(c)[0] == "L" or unicodedata.category(c) == "Nd" for c in text)


# -- streams -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("all", ("all", "")),
        ("user:ann", ("user", "ann")),
        ("group:g1", ("group", "g1")),
        ("user:all", ("user", "all")),
        ("user:a:b", ("user", "a:b")),
        ("group:user:ann", ("group", "user:ann")),
        ("group:" + "x" * 128, ("group", "x" * 128)),
    ],
)
def test_a_stream_is_a_kind_and_a_name(text: str, parsed: tuple[str, str]) -> None:
    assert parse_stream(text) == parsed


@pytest.mark.parametrize(
    "text", ["", "ann", "All", "all:", "all:x", "USER:ann", "users:ann", " user:ann", ":ann", "m:n"]
)
def test_what_is_no_stream_is_refused_as_a_stream(text: str) -> None:
    assert refusal(parse_stream, text) == "bad_stream"


@pytest.mark.parametrize("text", ["user:", "group:", "user:a/b", "group:..", "user:" + "x" * 129, "user:ann\n"])
def test_a_stream_of_a_bad_name_is_refused_for_the_name(text: str) -> None:
    assert refusal(parse_stream, text) == "bad_name"


def test_streams_are_spelt_as_they_are_parsed() -> None:
    assert parse_stream(user_stream("ann")) == ("user", "ann")
    assert parse_stream(group_stream("g1")) == ("group", "g1")


@pytest.mark.parametrize(
    ("stream", "group"),
    [("group:g1", "g1"), ("group:group:g1", "group:g1"), ("user:g1", None), ("all", None), ("user:group:x", None)],
)
def test_only_a_groups_stream_has_a_group(stream: str, group: str | None) -> None:
    assert group_of(stream) == group


# -- entry ids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("0-0", (0, 0)),
        ("1-1", (1, 1)),
        ("10-0", (10, 0)),
        ("0-10", (0, 10)),
        ("1712345678901-42", (1712345678901, 42)),
        ("9007199254740991-9007199254740991", (9007199254740991, 9007199254740991)),
    ],
)
def test_an_id_is_two_numbers_and_is_spelt_as_it_is_parsed(text: str, parsed: tuple[int, int]) -> None:
    assert parse_id(text) == EntryId(*parsed)
    assert str(parse_id(text)) == text


BAD_IDS = {
    "empty": "",
    "a number alone": "5",
    "no number": "5-",
    "no time": "-5",
    "a leading zero in the time": "01-1",
    "a leading zero in the number": "1-01",
    "two zeros": "00-0",
    "negative time": "-1-1",
    "negative number": "1--1",
    "a plus": "+1-1",
    "three parts": "1-1-1",
    "a blank": " 1-1",
    "a line break at the end": "1-1\n",
    "hexadecimal": "0x1-1",
    "an exponent": "1e3-1",
    "an underscore, which int() takes": "1_0-1",
    "a fraction": "1.5-1",
    "digits of another script, which int() takes": "٣-١",  # noqa: RUF001 - the point
    "full-width digits": "１-１",  # noqa: RUF001 - the point
    "a star": "1-*",
    "Redis' smallest": "-",
    "Redis' largest": "+",
    "Redis' new": "$",
    "seventeen digits": "10000000000000000-1",
    "seventeen digits of number": "1-10000000000000000",
    "five thousand digits": "9" * 5000 + "-1",
}


@pytest.mark.parametrize("text", BAD_IDS.values(), ids=BAD_IDS)
def test_what_is_no_id_is_refused(text: str) -> None:
    assert refusal(parse_id, text) == "bad_id"


def test_a_refusal_quotes_no_more_than_a_piece() -> None:
    for function in (check_name, parse_id, parse_stream):
        with pytest.raises(WaypostError) as caught:
            function("€" * 5000)
        assert len(caught.value.detail) < 100


def test_ids_compare_as_pairs_of_integers() -> None:
    ids = ["9-1", "10-1", "10-2", "10-10", "100-3"]
    assert sorted(map(parse_id, reversed(ids))) == [parse_id(text) for text in ids]


POSITION = EntryId(100, 7)


@pytest.mark.parametrize(
    ("entry", "is_next", "is_had"),
    [
        (EntryId(100, 8), True, False),
        (EntryId(101, 8), True, False),
        (EntryId(99, 8), False, False),  # the next number, but an older clock: another history
        (EntryId(100, 9), False, False),
        (EntryId(100, 7), False, True),
        (EntryId(100, 6), False, True),
        (EntryId(50, 7), False, True),
        (EntryId(50, 1), False, True),
        (EntryId(101, 7), False, False),  # a number given out again, later
        (EntryId(101, 3), False, False),
        (EntryId(50, 9), False, False),
    ],
)
def test_an_entry_follows_or_was_had_or_neither(entry: EntryId, is_next: bool, is_had: bool) -> None:
    assert follows(entry, POSITION) is is_next
    assert had(entry, POSITION) is is_had


ids = st.builds(EntryId, st.integers(0, 5), st.integers(0, 5))


@settings(derandomize=True)
@given(ids, ids)
def test_no_entry_both_follows_and_was_had(entry: EntryId, position: EntryId) -> None:
    assert not (follows(entry, position) and had(entry, position))
