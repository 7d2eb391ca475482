"""From what somebody shows to who they are: headers and queries, server keys, dev mode, the `/chat` paths."""

from collections.abc import Callable

import pytest

from service.auth import Credentials, Principal, SignIn, may
from service.config import Settings, load
from service.core import server_keys
from service.core.server_keys import Scope, ServerKey
from service.errors import Unavailable, WaypostError
from tests.unit.auth.issuer import SECRET, token

pytestmark = pytest.mark.anyio

KEY_ID = "0123456789ab"
KEY = server_keys.spell(KEY_ID, "s" * 43)
ADMIN: frozenset[Scope] = frozenset({"admin"})


class Keys:
    """The keys that the store has, and how often it was asked."""

    def __init__(self, *scopes: Scope, is_away: bool = False) -> None:
        self.asked: list[str] = []
        self._is_away = is_away
        self._key = ServerKey(
            id=KEY_ID, name="billing", scopes=frozenset(scopes), digest=server_keys.digest(KEY), created_at=1
        )

    async def find(self, key_id: str) -> ServerKey | None:
        self.asked.append(key_id)
        if self._is_away:
            raise Unavailable
        return self._key if key_id == KEY_ID else None


def settings(**variables: str) -> Settings:
    return load({f"WAYPOST_{name.upper()}": value for name, value in variables.items()})


def sign_in(keys: Keys | None = None, **variables: str) -> SignIn:
    """With a secret, and not in dev mode, unless the variables say otherwise."""
    return SignIn(settings(**({"jwt_secrets": SECRET} | variables)), (keys or Keys("send", "read")).find)


def dev(**variables: str) -> SignIn:
    """In dev mode, without key material."""
    return sign_in(None, **({"dev": "1", "jwt_secrets": ""} | variables))


def bearer(text: str, **more: object) -> Credentials:
    return Credentials(authorization=f"Bearer {text}", **more)  # type: ignore[arg-type]


async def refusal(looking: SignIn, given: Credentials) -> str:
    with pytest.raises(WaypostError) as caught:
        await looking.by(given)
    assert caught.value.code == "unauthorised"
    for shown in (given.authorization, given.token):
        assert not shown or len(shown) < 12 or shown not in caught.value.detail
    return caught.value.detail


# -- where a token stands ----------------------------------------------------------------------------------------------


async def test_a_token_in_the_header_in_the_query_or_the_same_in_both() -> None:
    shown = token()
    for given in (
        bearer(shown),
        Credentials(token=shown),
        bearer(shown, token=shown),
        Credentials(authorization=f"bearer {shown}"),
        Credentials(authorization=f"BEARER   {shown} "),
        bearer(shown, user="alice"),
        bearer(shown, user=""),
    ):
        principal = await sign_in().by(given)
        assert principal is not None
        assert (principal.user, principal.key, principal.scopes) == ("alice", "", frozenset())


async def test_two_that_differ_are_refused() -> None:
    detail = "the Authorization header and ?token= differ: give one of them"
    assert await refusal(sign_in(), bearer(token(), token=token(sub="bob"))) == detail
    assert await refusal(sign_in(), bearer(token(), token="")) == detail
    assert await refusal(sign_in(), bearer(KEY, token=token())) == detail


@pytest.mark.parametrize("header", ["Basic YWxpY2U6eA==", "Token abc", "", "abc", "Bearer", "Bearer ", "Bearer\tabc"])
async def test_another_header_is_refused(header: str) -> None:
    for looking in (sign_in(), dev()):
        await refusal(looking, Credentials(authorization=header, user="alice"))


async def test_an_empty_token_is_refused() -> None:
    assert await refusal(sign_in(), Credentials(token="")) == "the token is empty"
    assert await refusal(dev(), Credentials(token="", user="alice")) == "the token is empty"


async def test_the_user_that_is_named_has_to_be_the_tokens() -> None:
    detail = "the token is of another user than the one that is named"
    assert await refusal(sign_in(), bearer(token(), user="bob")) == detail
    assert await refusal(dev(jwt_secrets=SECRET), bearer(token(), user="bob")) == detail


async def test_who_shows_nothing_may_say_it_in_hello() -> None:
    assert await sign_in().by(Credentials()) is None
    assert await sign_in().by(Credentials(user="")) is None
    assert await sign_in().by(Credentials(is_local=True)) is None
    assert await sign_in().by_token(token()) is not None


async def test_nobody_is_taken_at_their_word() -> None:
    detail = "?user= alone signs in in dev mode only, and dev mode is off"
    assert await refusal(sign_in(), Credentials(user="alice", is_local=True)) == detail


async def test_a_token_of_hello_is_a_users() -> None:
    assert (await sign_in().by_token(token())).user == "alice"
    for looking in (sign_in(), dev()):
        with pytest.raises(WaypostError, match="a server key goes into the Authorization header, and nowhere else"):
            await looking.by_token(KEY)
    for wrong in ("", "abc", token(secret="x" * 40)):
        with pytest.raises(WaypostError, match="unauthorised"):
            await sign_in().by_token(wrong)
    with pytest.raises(WaypostError) as caught:
        await sign_in().by_token(token(exp=1))
    assert caught.value.code == "expired"


async def test_without_key_material_no_token_is_known() -> None:
    with pytest.raises(WaypostError, match="none of the WAYPOST_JWT_"):
        await sign_in(jwt_secrets="").by_token(token())
    with pytest.raises(WaypostError, match=r"in dev mode without WAYPOST_JWT_"):
        await dev().by_token(token())


# -- server keys -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looking", [sign_in, dev])
async def test_a_server_key_acts_for_whom_it_names(looking: Callable[[], SignIn]) -> None:
    scopes: frozenset[Scope] = frozenset({"send", "read"})
    assert await looking().by(bearer(KEY)) == Principal(user="", key=KEY_ID, scopes=scopes)
    assert await looking().by(bearer(KEY, user="bob")) == Principal(user="bob", key=KEY_ID, scopes=scopes)
    assert await refusal(looking(), bearer(KEY, user="a/b")) == "not a name: 'a/b'"


async def test_a_key_without_scopes_signs_in_and_may_nothing() -> None:
    principal = await sign_in(Keys()).by(bearer(KEY))
    assert principal is not None
    assert not may(principal, "send", "all")


@pytest.mark.parametrize(
    "text",
    [
        server_keys.spell("ba9876543210", "s" * 43),  # unknown, or revoked
        server_keys.spell(KEY_ID, "t" * 43),
        server_keys.spell(KEY_ID, "s" * 42),
        server_keys.spell(KEY_ID, "s" * 44),
        server_keys.spell(KEY_ID.upper(), "s" * 43),
        KEY + "\n",
        "wpk_",
        "wpk_é",
    ],
)
async def test_whatever_is_wrong_with_a_key_the_answer_is_the_same(text: str) -> None:
    if text.endswith("\n"):
        with pytest.raises(WaypostError, match="unauthorised"):
            await sign_in().by_token(text)
        return
    for looking in (sign_in(), dev()):
        assert await refusal(looking, bearer(text)) == "no such server key"


async def test_a_malformed_key_does_not_reach_the_store() -> None:
    keys = Keys()
    await refusal(sign_in(keys), bearer("wpk_" + "x" * 5000))
    assert keys.asked == []


async def test_a_key_in_an_address_is_refused() -> None:
    detail = "a server key goes into the Authorization header: addresses end up in logs"
    keys = Keys("send")
    assert await refusal(sign_in(keys), Credentials(token=KEY)) == detail
    assert await refusal(sign_in(keys), bearer(KEY, token=KEY)) == detail
    assert keys.asked == []


async def test_a_store_that_is_away_is_said() -> None:
    with pytest.raises(Unavailable):
        await sign_in(Keys(is_away=True)).by(bearer(KEY))


# -- dev mode ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variables", [{}, {"jwt_secrets": SECRET}])
async def test_dev_mode_takes_users_at_their_word(variables: dict[str, str]) -> None:
    given = Credentials(user="alice")
    assert await dev(**variables).by(given) == Principal(user="alice", can_broadcast=True)
    here = Credentials(user="alice", is_local=True)
    assert await dev(**variables).by(here) == Principal(user="alice", can_broadcast=True, scopes=ADMIN)


async def test_dev_mode_takes_names_alone() -> None:
    assert await refusal(dev(), Credentials(user="a/b")) == "not a name: 'a/b'"


async def test_dev_mode_looks_at_tokens_where_it_can() -> None:
    principal = await dev(jwt_secrets=SECRET).by(bearer(token(), is_local=True))
    assert principal is not None
    assert (principal.user, principal.can_broadcast, principal.scopes) == ("alice", False, frozenset())
    assert "is of none of our keys" in await refusal(dev(jwt_secrets=SECRET), bearer(token(secret="x" * 40)))
    for given in (bearer(token()), Credentials(token=token(), user="alice")):
        detail = "in dev mode without WAYPOST_JWT_… settings no token is known; ?user=<id> signs in"
        assert await refusal(dev(), given) == detail


async def test_dev_mode_without_key_material_waits_for_no_hello() -> None:
    for given in (Credentials(), Credentials(is_local=True), Credentials(user="")):
        assert await refusal(dev(), given) == "no sign-in was given; in dev mode ?user=<id> signs in"
        assert await dev(jwt_secrets=SECRET).by(given) is None


# -- administrators ----------------------------------------------------------------------------------------------------


async def test_in_dev_mode_everybody_on_this_machine_is_administrator() -> None:
    looking = dev(jwt_secrets=SECRET)
    assert await looking.administrator(Credentials(is_local=True)) == Principal(user="", scopes=ADMIN)
    assert await dev().administrator(Credentials(is_local=True)) == Principal(user="", scopes=ADMIN)
    for given in (Credentials(user="alice", is_local=True), bearer(token(), is_local=True)):
        principal = await looking.administrator(given)
        assert principal is not None
        assert (principal.user, principal.scopes) == ("alice", ADMIN)
        assert may(principal, "administer")


async def test_in_dev_mode_nobody_else_is() -> None:
    looking = dev(jwt_secrets=SECRET)
    assert await looking.administrator(Credentials()) is None
    for given in (Credentials(user="alice"), bearer(token())):
        principal = await looking.administrator(given)
        assert principal is not None
        assert not may(principal, "administer")
    with pytest.raises(WaypostError, match="unauthorised"):
        await dev().administrator(Credentials())


@pytest.mark.parametrize("variables", [{}, {"dev": "1"}])
async def test_a_server_key_is_by_its_scopes(variables: dict[str, str]) -> None:
    for scopes, is_one in ((("admin",), True), (("send", "read", "groups"), False)):
        principal = await sign_in(Keys(*scopes), **variables).administrator(bearer(KEY, is_local=True))
        assert principal is not None
        assert may(principal, "administer") is is_one


async def test_elsewhere_nobody_is_for_being_here() -> None:
    assert await sign_in().administrator(Credentials(is_local=True)) is None
    principal = await sign_in().administrator(bearer(token(), is_local=True))
    assert principal is not None
    assert not may(principal, "administer")
    with pytest.raises(WaypostError, match="unauthorised"):
        await sign_in().administrator(Credentials(user="alice", is_local=True))


async def test_a_wrong_sign_in_is_refused_on_this_machine_too() -> None:
    for given in (bearer("abc", is_local=True), bearer("wpk_abc", is_local=True), Credentials(token="", is_local=True)):
        for looking in (dev(), dev(jwt_secrets=SECRET), sign_in()):
            with pytest.raises(WaypostError, match="unauthorised"):
                await looking.administrator(given)


# -- /chat -------------------------------------------------------------------------------------------------------------


async def chat_refusal(looking: SignIn, user: str, given: Credentials) -> tuple[str, str]:
    with pytest.raises(WaypostError) as caught:
        await looking.for_chat(user, given)
    return caught.value.code, caught.value.detail


async def test_chat_is_open_in_dev_mode_and_where_it_is_said() -> None:
    for looking, is_dev in ((dev(), True), (dev(jwt_secrets=SECRET), True), (sign_in(chat="open"), False)):
        for given in (Credentials(), bearer("whatever"), Credentials(user="bob", is_local=True)):
            assert await looking.for_chat("alice", given) == Principal(user="alice", can_broadcast=is_dev)
        assert await chat_refusal(looking, "a/b", Credentials()) == ("unauthorised", "not a name: 'a/b'")


async def test_chat_wants_a_token_elsewhere() -> None:
    for looking in (sign_in(), sign_in(chat="token"), dev(jwt_secrets=SECRET, chat="token")):
        for given in (bearer(token(device="chat")), Credentials(token=token(device="chat"))):
            principal = await looking.for_chat("alice", given)
            assert (principal.user, principal.device, principal.can_broadcast) == ("alice", "chat", False)
        for given in (Credentials(), Credentials(user="alice", is_local=True)):
            code, detail = await chat_refusal(looking, "alice", given)
            assert (code, detail[:33]) == ("unauthorised", "the /chat paths want a token here")
        detail = "the token is of another user than the one that is named"
        assert await chat_refusal(looking, "bob", bearer(token())) == ("unauthorised", detail)
        assert (await chat_refusal(looking, "alice", bearer(token(exp=1))))[0] == "expired"
    with pytest.raises(WaypostError, match="in dev mode without WAYPOST_JWT_"):
        await dev(chat="token").for_chat("alice", bearer(token()))


async def test_a_server_key_comes_as_anybody() -> None:
    principal = await sign_in().for_chat("bob", bearer(KEY))
    assert (principal.user, principal.key) == ("bob", KEY_ID)


async def test_chat_is_off_where_it_is_said() -> None:
    for looking in (sign_in(chat="off"), dev(chat="off")):
        for given in (Credentials(), bearer(token()), bearer(KEY)):
            assert (await chat_refusal(looking, "alice", given))[0] == "forbidden"


def test_keys_that_cannot_be_read_stop_the_start() -> None:
    with pytest.raises(ValueError, match="cannot read"):
        SignIn(Settings(jwt_keys="/nowhere/keys.pem"), Keys().find)
