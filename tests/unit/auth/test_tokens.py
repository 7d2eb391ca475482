"""Tokens of users: signatures of every algorithm, each claim right and wrong."""

import hashlib
import hmac
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from service.auth.principal import Principal
from service.auth.tokens import GROUPS_MAX, TOKEN_BYTES_MAX, Claims, Tokens, mint
from service.config import load
from service.errors import WaypostError
from tests.unit.auth.issuer import OTHER_SECRET, SECRET, certificate_pem, jwk, public_pem, spelt, token

pytestmark = pytest.mark.anyio


def tokens(pem: str = "", folder: Path | None = None, **variables: str) -> Tokens:
    """What looks at tokens with these settings; `pem` is the content of the file of keys."""
    given = {f"WAYPOST_{name.upper()}": value for name, value in variables.items()}
    if pem:
        assert folder is not None
        (folder / "keys.pem").write_text(pem)
        given["WAYPOST_JWT_KEYS"] = str(folder / "keys.pem")
    elif "jwt_secrets" not in variables:
        given["WAYPOST_JWT_SECRETS"] = SECRET
    return Tokens(load(given))


async def refusal(looking: Tokens, shown: str) -> WaypostError:
    with pytest.raises(WaypostError) as caught:
        await looking.principal(shown)
    assert shown not in caught.value.detail
    return caught.value


# -- signatures --------------------------------------------------------------------------------------------------------


async def test_all_that_a_token_can_say() -> None:
    exp = int(time.time()) + 60
    shown = token(exp=exp, device="phone", groups=["g1", "team-*", "*"], broadcast=True, name="Alice A.", roles=[1])
    assert await tokens().principal(shown) == Principal(
        user="alice", device="phone", groups=("g1", "team-*", "*"), can_broadcast=True, expires_at=exp
    )


async def test_a_token_need_not_say_more_than_who() -> None:
    assert await tokens().principal(token(exp=None, iat=None)) == Principal(user="alice")


async def test_what_we_sign_ourselves_is_good() -> None:
    shown = mint(Claims(sub="bob", groups=["g1"], exp=time.time() + 9), SECRET)
    made = await tokens().principal(shown)
    assert (made.user, made.groups) == ("bob", ("g1",))


@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("spell", [public_pem, certificate_pem])
async def test_each_algorithm_with_its_key(kind: str, spell: Any, tmp_path: Path) -> None:  # noqa: ANN401
    looking = tokens(spell(kind), tmp_path)
    assert (await looking.principal(token(kind))).user == "alice"
    problem = await refusal(looking, token(f"{kind}-2"))
    assert (problem.code, problem.detail) == ("unauthorised", "the token's signature is of none of our keys")


async def test_several_keys_in_one_file_are_tried(tmp_path: Path) -> None:
    kinds = ("RS256", "ES256", "EdDSA", "RS256-2", "ES256-2")
    looking = tokens("some words\n" + "".join(map(public_pem, kinds)), tmp_path, jwt_secrets=SECRET)
    for kind in (*kinds, "HS256"):
        assert (await looking.principal(token(kind))).user == "alice"
    assert (await refusal(looking, token("EdDSA-2"))).code == "unauthorised"


async def test_secrets_rotate() -> None:
    looking = tokens(jwt_secrets=f" {OTHER_SECRET} ,, {SECRET}")
    assert (await looking.principal(token(secret=SECRET))).user == "alice"
    assert (await looking.principal(token(secret=OTHER_SECRET))).user == "alice"
    assert (await refusal(tokens(jwt_secrets=OTHER_SECRET), token(secret=SECRET))).code == "unauthorised"
    assert (await refusal(looking, token(secret="x" * 40))).code == "unauthorised"


async def test_a_public_key_is_never_a_secret(tmp_path: Path) -> None:
    """The classical confusion: HS256 with the public key, which everybody knows, as the secret."""
    pem = public_pem("RS256")
    signed = spelt({"alg": "HS256"}, b'{"sub":"alice"}').rsplit(".", 1)[0]
    forged = f"{signed}." + spelt({}, b"", hmac.digest(pem.encode(), signed.encode(), hashlib.sha256)).split(".")[2]
    for looking in (tokens(pem, tmp_path), tokens(pem, tmp_path, jwt_secrets=SECRET)):
        assert (await refusal(looking, forged)).code == "unauthorised"


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "", "HS384", "HS512", "PS256", "RS384", "ES384", "ES256K", 7, []]
)
async def test_no_other_algorithm(algorithm: object, tmp_path: Path) -> None:
    looking = tokens(public_pem("RS256") + public_pem("ES256"), tmp_path, jwt_secrets=SECRET)
    for signature in (b"", b"x" * 64):
        problem = await refusal(looking, spelt({"alg": algorithm}, b'{"sub":"alice"}', signature))
        assert problem.detail == "the token is not signed with one of HS256, RS256, ES256"


async def test_the_algorithms_are_those_of_the_settings(tmp_path: Path) -> None:
    looking = tokens(public_pem("ES256"), tmp_path)
    for kind in ("HS256", "RS256", "EdDSA"):
        assert (await refusal(looking, token(kind))).detail == "the token is not signed with one of ES256"
    assert (await refusal(tokens(), token("ES256"))).detail == "the token is not signed with one of HS256"


@pytest.mark.parametrize("kind", ["HS256", "RS256", "ES256", "EdDSA"])
async def test_a_token_that_was_changed(kind: str, tmp_path: Path) -> None:
    looking = tokens("".join(map(public_pem, ("RS256", "ES256", "EdDSA"))), tmp_path, jwt_secrets=SECRET)
    header, payload, signature = token(kind).split(".")
    _, other, its = token(kind, sub="mallory").split(".")
    for changed in (f"{header}.{other}.{signature}", f"{header}.{payload}.{its}", f"{header}.{payload}."):
        assert (await refusal(looking, changed)).code == "unauthorised"


@pytest.mark.parametrize(
    "shown",
    [
        "abc",
        "a.b",
        "a.b.c",
        "..",
        "a.b.c.d",
        "é.é.é",
        "\ud800",
        "x" * TOKEN_BYTES_MAX,
        spelt({"alg": "HS256"}, b"")[:-1] + "=",
        spelt({"alg": "HS256", "kid": 3}, b"{}"),
        "W10.e30.e30",  # the header is a list
        spelt({}, b"{}").replace("e30", "W1tb", 1),
    ],
)
async def test_what_is_no_token(shown: str) -> None:
    assert (await refusal(tokens(), shown)).code == "unauthorised"


async def test_brackets_in_brackets_are_refused_like_anything_else() -> None:
    nested = b"[" * 2900
    header = spelt({}, nested).split(".")[1]
    assert (await refusal(tokens(), f"{header}.e30.e30")).code == "unauthorised"
    for payload in (nested, b'{"x":' + nested, b"null", b"[]", b"7", b"{", b"\xff", b'{"sub":"\xff"}'):
        assert (await refusal(tokens(), signed(payload))).code == "unauthorised"


def signed(payload: bytes, **header: object) -> str:
    """A token with this payload, signed well."""
    unsigned = spelt({"alg": "HS256"} | header, payload).rsplit(".", 1)[0]
    return f"{unsigned}." + spelt({}, b"", hmac.digest(SECRET.encode(), unsigned.encode(), "sha256")).split(".")[2]


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}, {"b64": True}])
async def test_a_header_that_asks_for_more_is_refused(header: dict[str, Any]) -> None:
    assert (await tokens().principal(signed(b'{"sub":"alice"}'))).user == "alice"
    assert (await refusal(tokens(), signed(b'{"sub":"alice"}', **header))).code == "unauthorised"


async def test_the_key_in_a_header_is_nobodys() -> None:
    for header in ({"jwk": jwk("ES256")}, {"jku": "http://127.0.0.1:1/keys"}):
        assert (await refusal(tokens(), token("ES256", headers=header))).code == "unauthorised"


async def test_a_token_as_long_as_the_limit_is_read() -> None:
    shown = token(x="x" * 5800)
    assert TOKEN_BYTES_MAX - 400 < len(shown) <= TOKEN_BYTES_MAX
    assert (await tokens().principal(shown)).user == "alice"
    problem = await refusal(tokens(), token(x="x" * 6400))
    assert problem.detail == f"the token is no JWT of at most {TOKEN_BYTES_MAX} bytes"


def test_a_short_secret_is_warned_about_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="waypost.tokens"):
        tokens(jwt_secrets=f"{SECRET},hunter2")
    [record] = caplog.records
    assert record.getMessage() == "short_secret"
    assert record.__dict__["fields"] == {"detail": "place 2 of WAYPOST_JWT_SECRETS: below 32 bytes"}


async def test_a_short_secret_works() -> None:
    assert (await tokens(jwt_secrets="hunter2").principal(mint(Claims(sub="bob"), "hunter2"))).user == "bob"


# -- time --------------------------------------------------------------------------------------------------------------

NOW = 1_800_000_000.0


def at(moment: float, **variables: str) -> Tokens:
    given = {f"WAYPOST_{name.upper()}": value for name, value in variables.items()}
    return Tokens(load({"WAYPOST_JWT_SECRETS": SECRET} | given), now=lambda: moment)


@pytest.mark.parametrize(
    ("exp", "is_good"), [(NOW + 0.5, True), (NOW + 1, True), (NOW, False), (NOW - 1, False), (0, False)]
)
async def test_exp_is_strict(exp: float, is_good: bool) -> None:
    shown = token(iat=None, exp=exp)
    if is_good:
        assert (await at(NOW).principal(shown)).expires_at == exp
    else:
        problem = await refusal(at(NOW, jwt_leeway_s="60"), shown)
        assert (problem.code, problem.detail) == ("expired", "the token has expired")


@pytest.mark.parametrize("claim", ["nbf", "iat"])
async def test_nbf_and_iat_have_a_leeway(claim: str) -> None:
    said: dict[str, Any] = {"iat": None, "exp": NOW + 900}
    for ahead, leeway in ((-60, "0"), (0, "0"), (5, "5"), (60, "60")):
        assert (await at(NOW, jwt_leeway_s=leeway).principal(token(**said | {claim: NOW + ahead}))).user == "alice"
    for ahead, leeway in ((1, "0"), (6, "5"), (61, "60")):
        problem = await refusal(at(NOW, jwt_leeway_s=leeway), token(**said | {claim: NOW + ahead}))
        assert problem.code == "unauthorised"
        assert problem.detail == f"the claim {claim} lies in the future: the token is not valid yet"


async def test_expired_is_said_of_what_was_good_otherwise() -> None:
    past: dict[str, Any] = {"iat": None, "exp": NOW - 9}
    assert (await refusal(at(NOW), token(**past))).code == "expired"
    for wrong in ({"sub": "a/b"}, {"aud": "x"}, {"device": 3}, {"nbf": NOW + 60}):
        assert (await refusal(at(NOW), token(**past | wrong))).code == "unauthorised"
    assert (await refusal(at(NOW), token(secret=OTHER_SECRET, **past))).code == "unauthorised"


# -- whom it is for, and from ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aud", ["chat", ["chat"], ["web", "chat"]])
async def test_the_audience_that_is_configured(aud: object) -> None:
    assert (await tokens(jwt_audience="chat").principal(token(aud=aud))).user == "alice"


@pytest.mark.parametrize("aud", [None, "web", "Chat", [], ["web"], ""])
async def test_another_audience(aud: object) -> None:
    problem = await refusal(tokens(jwt_audience="chat"), token(aud=aud))
    assert problem.detail == "the claim aud does not name the audience of WAYPOST_JWT_AUDIENCE"


@pytest.mark.parametrize("aud", ["chat", ["chat"], [], ""])
async def test_an_audience_while_none_is_configured(aud: object) -> None:
    problem = await refusal(tokens(), token(aud=aud))
    assert problem.detail == "the token has an aud, and none is configured here (WAYPOST_JWT_AUDIENCE)"


async def test_the_issuer_that_is_configured() -> None:
    looking = tokens(jwt_issuer="https://id.example")
    assert (await looking.principal(token(iss="https://id.example"))).user == "alice"
    assert (await tokens().principal(token(iss="anybody"))).user == "alice"
    for iss in (None, "https://id.example/", ""):
        problem = await refusal(looking, token(iss=iss))
        assert problem.detail == "the claim iss is not the issuer of WAYPOST_JWT_ISSUER"


# -- each claim wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        ({"sub": None}, "the claim sub: Expected str, got null"),
        ({"sub": 7}, "the claim sub: Expected str, got int"),
        ({"sub": ""}, "the claim sub is not a name"),
        ({"sub": "a/b"}, "the claim sub is not a name"),
        ({"sub": "x" * 129}, "the claim sub is not a name"),
        ({"sub": "e\u0301"}, "the claim sub is not a name"),
        ({}, "the claim sub is missing: it says who signs in"),
        ({"device": None}, "the claim device: Expected str, got null"),
        ({"device": 7}, "the claim device: Expected str, got int"),
        ({"device": ""}, "the claim device is not a name"),
        ({"device": "my phone"}, "the claim device is not a name"),
        ({"groups": "g1"}, "the claim groups: Expected array, got str"),
        ({"groups": {"g1": 1}}, "the claim groups: Expected array, got object"),
        ({"groups": ["g1", 7]}, "the claim groups: Expected str, got int"),
        ({"groups": ["a b"]}, "the claim groups holds something that is neither a name nor the beginning of names"),
        ({"groups": [""]}, "the claim groups holds something that is neither a name nor the beginning of names"),
        ({"groups": ["**"]}, "the claim groups holds something that is neither a name nor the beginning of names"),
        ({"groups": ["a*b"]}, "the claim groups holds something that is neither a name nor the beginning of names"),
        ({"groups": ["g"] * (GROUPS_MAX + 1)}, f"the claim groups: Expected array of length <= {GROUPS_MAX}"),
        ({"broadcast": "yes"}, "the claim broadcast: Expected bool, got str"),
        ({"broadcast": 1}, "the claim broadcast: Expected bool, got int"),
        ({"exp": "soon"}, "the claim exp: Expected float, got str"),
        ({"exp": True}, "the claim exp: Expected float, got bool"),
        ({"exp": None}, "the claim exp: Expected float, got null"),
        ({"exp": -1}, "the claim exp: Expected float >= 0.0"),
        ({"exp": 10**40}, f"the claim exp: Expected float <= {2.0**53!r}"),
        ({"nbf": "soon"}, "the claim nbf: Expected float, got str"),
        ({"iat": []}, "the claim iat: Expected float, got array"),
        ({"aud": 7}, "the claim aud: Expected str | array, got int"),
        ({"aud": ["x", 7]}, "the claim aud: Expected str, got int"),
        ({"iss": 7}, "the claim iss: Expected str, got int"),
    ],
)
async def test_a_claim_that_is_wrong(payload: dict[str, object], detail: str) -> None:
    said = {"sub": "alice"} | payload if payload else {}
    problem = await refusal(tokens(), signed(json.dumps(said).encode()))
    assert (problem.code, problem.detail) == ("unauthorised", detail)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1" * 5000])
async def test_numbers_that_are_none(number: str) -> None:
    assert (await refusal(tokens(), signed(f'{{"sub":"alice","exp":{number}}}'.encode()))).code == "unauthorised"


async def test_as_many_groups_as_the_limit() -> None:
    made = await tokens().principal(token(groups=["g"] * GROUPS_MAX))
    assert len(made.groups) == GROUPS_MAX


async def test_a_refusal_repeats_nothing_of_the_token() -> None:
    for wrong in ({"sub": "hunter2/"}, {"device": "hunter2/"}, {"groups": ["hunter2/"]}, {"aud": "hunter2"}):
        assert "hunter2" not in (await refusal(tokens(), token(**wrong))).detail
