"""Settings: precedence, bounds, and everything that is wrong said at once."""

from pathlib import Path

import msgspec
import pytest

from service.config import RATES, Limits, Schedule, Settings, SettingsError, known, load
from service.core.names import check_name
from tests.unit.auth.issuer import certificate_pem, private_pem, public_pem


def refusal(environ: dict[str, str]) -> list[str]:
    """The lines that `load` refuses these variables with."""
    with pytest.raises(SettingsError) as caught:
        load(environ)
    return caught.value.lines


def toml(folder: Path, text: str) -> dict[str, str]:
    """The environment that names a file with this content."""
    path = folder / "waypost.toml"
    path.write_text(text)
    return {"WAYPOST_CONFIG": str(path)}


def test_defaults_need_nothing() -> None:
    settings = load({"HOME": "/somewhere", "PATH": "/bin"})
    assert (settings.host, settings.port, settings.data_dir, settings.dev) == ("127.0.0.1", 8000, ".waypost", False)
    assert settings.url == "http://127.0.0.1:8000"
    assert settings.limits == Limits()
    assert check_name(settings.node)


def test_the_caller_says_what_dev_is_by_default() -> None:
    assert load({}, dev_default=True).dev
    assert not load({"WAYPOST_DEV": "0"}, dev_default=True).dev
    assert load({"WAYPOST_DEV": "1"}).dev


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environ = toml(tmp_path, 'port = 9000\nhost = "::1"\nping_s = 20\n[limits]\nbody_bytes = 1000\nconnections = 700\n')
    settings = load(environ | {"WAYPOST_PORT": "9001", "WAYPOST_LIMITS_CONNECTIONS": "800"})
    assert (settings.port, settings.host, settings.ping_s) == (9001, "::1", 20.0)
    assert (settings.limits.body_bytes, settings.limits.connections) == (1000, 800)
    assert settings.url == "http://[::1]:9001"


@pytest.mark.parametrize(
    ("environ", "format_"),
    [
        ({}, "auto"),
        ({"NO_COLOR": ""}, "auto"),
        ({"NO_COLOR": "1"}, "text"),
        ({"NO_COLOR": "1", "WAYPOST_LOG_FORMAT": "json"}, "json"),
    ],
)
def test_no_color_takes_the_colours_from_the_log(environ: dict[str, str], format_: str) -> None:
    assert load(environ).log_format == format_


def test_an_empty_variable_counts_as_not_given(tmp_path: Path) -> None:
    environ = toml(tmp_path, "port = 9000\n")
    assert load(environ | {"WAYPOST_PORT": "", "WAYPOST_REDIS_URL": "", "WAYPOST_NO_SUCH": ""}).port == 9000


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    environ = toml(tmp_path, 'prot = 1\nping_s = "often"\nretention = 3\n[limits]\nbody_byte = 1\npage_entries = 0\n')
    lines = refusal(
        environ | {"WAYPOST_PORT": "70000", "WAYPOST_LIMIT_BODY_BYTES": "1", "WAYPOST_REDIS_URL": "http://x"}
    )
    file = environ["WAYPOST_CONFIG"]
    assert lines == [
        f"{file}: retention: Expected a table, [retention]",
        f"{file}: prot: no such setting; did you mean port?",
        f"{file}: limits.body_byte: no such setting; did you mean limits.body_bytes?",
        "WAYPOST_LIMIT_BODY_BYTES: no such setting; did you mean WAYPOST_LIMITS_BODY_BYTES?",
        "WAYPOST_PORT: Expected int <= 65535",
        f"{file}: ping_s: Expected float, got str",
        f"{file}: limits.page_entries: Expected int >= 1",
        "WAYPOST_REDIS_URL: Expected a URL that begins with redis://, rediss://, unix://",
    ]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WAYPOST_PORT", "0"),
        ("WAYPOST_PROCESSES", "0"),
        ("WAYPOST_PORT", "eight"),
        ("WAYPOST_PORT", "80.5"),
        ("WAYPOST_PING_S", "0"),
        ("WAYPOST_PING_S", "nan"),
        ("WAYPOST_PING_S", "inf"),
        ("WAYPOST_PING_S", "-1"),
        ("WAYPOST_COMMIT_S", "1.5"),
        ("WAYPOST_DEV", "maybe"),
        ("WAYPOST_LOG_LEVEL", "loud"),
        ("WAYPOST_GROUPS_CREATE", "nobody"),
        ("WAYPOST_WAIT_REPLICAS", "-1"),
        ("WAYPOST_REDIS_URL", "redis"),
        ("WAYPOST_REDIS_URL", "redis://host:port/0"),
        ("WAYPOST_URL", "ws://127.0.0.1"),
        ("WAYPOST_NODE", "a/b"),
        ("WAYPOST_JWT_SECRETS", " , "),
        ("WAYPOST_JWT_JWKS_URL", "ftp://id.example/keys"),
        ("WAYPOST_JWT_JWKS_URL", "file:///etc/keys"),
        ("WAYPOST_JWT_JWKS_URL", "https:///keys"),
        ("WAYPOST_JWT_JWKS_URL", "https://id.example:x/keys"),
        ("WAYPOST_JWT_JWKS_URL", "https://hunter2@id.example/keys"),
        ("WAYPOST_JWT_LEEWAY_S", "-1"),
        ("WAYPOST_JWKS_TTL_S", "0"),
        ("WAYPOST_JWKS_PAUSE_S", "0"),
        ("WAYPOST_TOKEN_GRACE_S", "-1"),
        ("WAYPOST_CHAT", "shut"),
        ("WAYPOST_ORIGINS", "app.example"),
        ("WAYPOST_ORIGINS", "https://app.example/"),
        ("WAYPOST_ORIGINS", "https://app.example/path"),
        ("WAYPOST_ORIGINS", "https://app.example?x"),
        ("WAYPOST_ORIGINS", "https://me@app.example"),
        ("WAYPOST_ORIGINS", "https://app.example:x"),
        ("WAYPOST_ORIGINS", "https://app.example:0"),
        ("WAYPOST_ORIGINS", "https://*.app.example"),
        ("WAYPOST_ORIGINS", "https:// app.example"),
        ("WAYPOST_ORIGINS", "https://bücher.example"),
        ("WAYPOST_ORIGINS", "null"),
        ("WAYPOST_LIMITS_USER_SENDS_PER_S", "-1"),
        ("WAYPOST_LIMITS_BODY_BYTES", "0"),
        ("WAYPOST_LIMITS_BODY_BYTES", "64KiB"),
        ("WAYPOST_LIMITS_CONNECTIONS", "10000000000"),
    ],
)
def test_a_value_out_of_bounds_is_refused(variable: str, value: str) -> None:
    (line,) = refusal({variable: value})
    assert line.startswith(f"{variable}: ")


@pytest.mark.parametrize(("spelt", "meant"), [("1", True), ("TRUE", True), ("on", True), ("0", False), ("No", False)])
def test_yes_and_no(spelt: str, meant: bool) -> None:
    assert load({"WAYPOST_DEV": spelt}).dev is meant


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"WAYPOST_LIMITS_BODY_BYTES": "200000"}, "WAYPOST_LIMITS_FRAME_BYTES"),
        ({"WAYPOST_LIMITS_FRAME_BYTES": "2000000"}, "WAYPOST_LIMITS_WS_MAX_BYTES"),
        ({"WAYPOST_MAILBOX_TTL_S": "8"}, "WAYPOST_MAILBOX_TTL_S"),
        ({"WAYPOST_BEAT_S": "3"}, "WAYPOST_NOT_READY_S"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(environ: dict[str, str], named: str) -> None:
    assert any(line.startswith(f"{named}: Expected at least") for line in refusal(environ))


def test_a_password_is_not_repeated() -> None:
    assert "hunter2" not in "\n".join(refusal({"WAYPOST_REDIS_URL": "https://:hunter2@host/0"}))


@pytest.mark.parametrize("content", ["port = ", "limits = 3", "config = 'x'"])
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, content: str) -> None:
    environ = toml(tmp_path, content)
    (line,) = refusal(environ)
    assert environ["WAYPOST_CONFIG"] in line


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (line,) = refusal({"WAYPOST_CONFIG": str(tmp_path / "none.toml")})
    assert line == f"WAYPOST_CONFIG: cannot read {tmp_path / 'none.toml'}: No such file or directory"


def test_an_address_for_all_is_not_one_to_call() -> None:
    assert load({"WAYPOST_HOST": "0.0.0.0"}).url == "http://127.0.0.1:8000"
    assert load({"WAYPOST_URL": "https://chat.example"}).url == "https://chat.example"


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError):
        load({}).port = 1  # type: ignore[misc]


def test_every_default_is_within_its_own_bounds() -> None:
    for setting in known():
        msgspec.convert(setting.default, setting.type)
    assert {setting.key for setting in known() if not setting.table} == set(Settings.__struct_fields__) - {
        "limits",
        "retention",
        "jobs",
    }


def test_durations_and_schedules(tmp_path: Path) -> None:
    file = '[retention]\ndevice_idle_max = "12h"\n[jobs.retention]\nevery = "30s"\n[jobs.audit]\ncron = "0 3 * * *"\n'
    settings = load(toml(tmp_path, file) | {"WAYPOST_JOBS_GROUPS_EVERY": "1d"})
    assert settings.retention.device_idle_max == 43_200
    assert settings.jobs.retention == Schedule(every=30)
    assert settings.jobs.audit.cron == "0 3 * * *"
    assert settings.jobs.groups.every == 86_400
    assert load({}).jobs.retention.every == 300
    assert load({}).retention.policies == ()


def test_policies_come_from_the_file(tmp_path: Path) -> None:
    environ = toml(
        tmp_path,
        """
        [[retention.policies]]
        match = "group:*"
        max_age = "14d"
        max_entries = 10_000
        max_bytes = "64MB"
        min_keep = 100
        [[retention.policies]]
        match = "user:*"
        max_age = "14d"
        hold_unread = "90d"
        """,
    )
    [groups, inboxes] = load(environ).retention.policies
    assert (groups.match, groups.max_age_s, groups.max_entries) == ("group:*", 14 * 86_400, 10_000)
    assert (groups.max_bytes, groups.min_keep, groups.hold_unread_s) == (64_000_000, 100, None)
    assert groups.source == f"{environ['WAYPOST_CONFIG']} [[retention.policies]] 1"
    assert (inboxes.match, inboxes.hold_unread_s) == ("user:*", 90 * 86_400)


def test_what_is_wrong_with_policies_and_schedules_is_said_at_once(tmp_path: Path) -> None:
    environ = toml(
        tmp_path,
        """
        [retention]
        device_idle_max = 90
        [[retention.policies]]
        match = "groups:*"
        max_age = "2w"
        [[retention.policies]]
        match = "group:*"
        max_ages = "14d"
        max_entries = 10
        min_keep = 11
        hold_unread = "1d"
        [[retention.policies]]
        match = "group:*"
        [[retention.policies]]
        match = "user:*"
        max_age = "14d"
        hold_unread = "14d"
        [[retention.policies]]
        match = "all"
        min_keep = 5
        max_bytes = "1XB"
        [jobs.retention]
        every = "5m"
        cron = "*/5 * * * *"
        [jobs.audit]
        cron = "at night"
        [jobs.cleanup]
        every = "1h"
        """,
    )
    file = environ["WAYPOST_CONFIG"]
    lines = refusal(environ)
    begins = [
        f"{file}: jobs.cleanup: no such job; there are retention, devices, groups, audit",
        f"{file}: retention.device_idle_max: Expected a duration",
        "jobs.retention: Expected `every` or `cron`, not both",
        "jobs.audit.cron: Expected five fields",
        f"{file}: retention.policies[1]: max_age: Expected a duration",
        f"{file}: retention.policies[1]: match: Expected user:*, group:*, all, or the name of one stream",
        f"{file}: retention.policies[2]: max_ages: no such setting",
        f"{file}: retention.policies[2]: min_keep: Expected at most max_entries",
        f"{file}: retention.policies[2]: hold_unread: only inboxes",
        f"{file}: retention.policies[3]: match: group:* has a policy already",
        f"{file}: retention.policies[4]: hold_unread: Expected more than max_age",
        f"{file}: retention.policies[5]: max_bytes: Expected a size",
        f"{file}: retention.policies[5]: min_keep: there is no max_age",
    ]
    assert [line for line, begin in zip(lines, begins, strict=True) if not line.startswith(begin)] == []


def test_a_cron_of_a_day_that_never_comes_is_refused() -> None:
    [line] = refusal({"WAYPOST_JOBS_AUDIT_CRON": "0 3 30 2 *"})
    assert line == "jobs.audit.cron: Expected a time that comes: there is no such date"


@pytest.mark.parametrize("content", ["[retention]\npolicies = 3\n", "jobs = 3\n", "[jobs]\nretention = 3\n"])
def test_a_table_of_another_shape_is_refused(tmp_path: Path, content: str) -> None:
    [line] = refusal(toml(tmp_path, content))
    assert "Expected a" in line


# -- sign-in -----------------------------------------------------------------------------------------------------------


def test_what_makes_key_material(tmp_path: Path) -> None:
    assert not load({}).has_key_material
    assert load({"WAYPOST_JWT_SECRETS": "x"}).has_key_material
    assert load({"WAYPOST_JWT_JWKS_URL": "https://id.example/keys"}).has_key_material
    (tmp_path / "keys.pem").write_text(public_pem("ES256"))
    assert load({"WAYPOST_JWT_KEYS": str(tmp_path / "keys.pem")}).has_key_material


def test_secrets_are_a_list_with_commas() -> None:
    assert load({"WAYPOST_JWT_SECRETS": " one ,two,, "}).secrets == ("one", "two")
    assert load({}).secrets == ()


@pytest.mark.parametrize(
    "wrong", [public_pem("RS256"), private_pem("ES256"), certificate_pem("ES256"), '{"kty":"oct"}']
)
def test_a_key_is_no_secret(wrong: str) -> None:
    [line] = refusal({"WAYPOST_JWT_SECRETS": f"good,{wrong}"})
    assert line == (
        "WAYPOST_JWT_SECRETS: Expected a secret in place 2, not a key or a certificate (those go into WAYPOST_JWT_KEYS)"
    )


@pytest.mark.parametrize(
    ("pem", "problem"),
    [
        ("", "no public key in PEM (-----BEGIN PUBLIC KEY-----)"),
        ("hello", "no public key in PEM (-----BEGIN PUBLIC KEY-----)"),
        (public_pem("RSA1024"), "block 1 is an RSA key of 1024 bits; expected at least 2048"),
        (public_pem("ES256") + public_pem("P384"), "block 2 is a key on the curve secp384r1; expected P-256"),
        (public_pem("Ed448"), "block 1 is a key of a kind that is not taken; expected RSA, P-256 or Ed25519"),
        (public_pem("DSA"), "block 1 is a key of a kind that is not taken; expected RSA, P-256 or Ed25519"),
        (private_pem("EdDSA"), "block 1 is a private key; give public ones only, and make that one anew"),
        (public_pem("ES256").replace("PUBLIC", "PGP"), "block 1 is neither a public key nor a certificate"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "block 1 cannot be read"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "block 1 cannot be read"),
        (public_pem("EdDSA") * 101, "more than 100 keys"),
        ("x" * 1_048_577, "larger than 1048576 bytes"),
    ],
)
def test_a_file_of_keys_that_cannot_be_used(tmp_path: Path, pem: str, problem: str) -> None:
    path = tmp_path / "keys.pem"
    path.write_text(pem)
    assert refusal({"WAYPOST_JWT_KEYS": str(path)}) == [f"WAYPOST_JWT_KEYS: {path}: {problem}"]


def test_a_file_of_keys_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.pem"
    assert refusal({"WAYPOST_JWT_KEYS": str(path)}) == [
        f"WAYPOST_JWT_KEYS: cannot read {path}: No such file or directory"
    ]
    assert refusal({"WAYPOST_JWT_KEYS": str(tmp_path)}) == [f"WAYPOST_JWT_KEYS: cannot read {tmp_path}: Is a directory"]


def test_all_that_is_wrong_with_sign_in_is_said_at_once_without_secrets() -> None:
    lines = refusal(
        {
            "WAYPOST_PORT": "x",
            "WAYPOST_JWT_SECRETS": "hunter2,ssh-rsa AAAAhunter2",
            "WAYPOST_JWT_KEYS": "/nowhere/keys.pem",
            "WAYPOST_JWT_JWKS_URL": "https://me:hunter2@id.example",
            "WAYPOST_ORIGINS": "https://good.example, hunter2",
        }
    )
    names = ["PORT", "JWT_SECRETS", "JWT_KEYS", "JWT_JWKS_URL", "ORIGINS"]
    assert [line.split(": ")[0] for line in lines] == [f"WAYPOST_{name}" for name in names]
    assert lines[-1].endswith("in place 2")
    assert "hunter2" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("environ", "mode"),
    [
        ({}, "token"),
        ({"WAYPOST_DEV": "1"}, "open"),
        ({"WAYPOST_DEV": "1", "WAYPOST_CHAT": "token"}, "token"),
        ({"WAYPOST_DEV": "1", "WAYPOST_CHAT": "off"}, "off"),
        ({"WAYPOST_CHAT": "open"}, "open"),
    ],
)
def test_who_comes_to_chat(environ: dict[str, str], mode: str) -> None:
    assert load(environ).chat_mode == mode


def test_origins_are_spelt_as_browsers_spell_them() -> None:
    given = "https://App.example , http://127.0.0.1:8080,https://a.example:443,http://b.example:80,http://[::1]:3000,*"
    assert load({"WAYPOST_ORIGINS": given}).origin_list == (
        "https://app.example",
        "http://127.0.0.1:8080",
        "https://a.example",
        "http://b.example",
        "http://[::1]:3000",
        "*",
    )
    assert load({}).origin_list == ()


def test_rates_are_off_in_dev_mode_unless_they_are_set(tmp_path: Path) -> None:
    assert set(RATES) == {
        "user_sends_per_s",
        "connection_sends_per_s",
        "user_joins_per_s",
        "user_histories_per_s",
        "user_requests_per_s",
    }
    limits = load({"WAYPOST_DEV": "1", "WAYPOST_LIMITS_USER_JOINS_PER_S": "7"}).limits
    assert {rate: getattr(limits, rate) for rate in RATES} == dict.fromkeys(RATES, 0.0) | {"user_joins_per_s": 7.0}
    assert limits.user_sends_burst == Limits().user_sends_burst
    in_file = toml(tmp_path, "dev = true\n[limits]\nuser_sends_per_s = 3\n")
    assert load(in_file).limits.user_sends_per_s == 3
    assert load(in_file).limits.user_requests_per_s == 0
    assert load({}).limits == Limits()
    assert load({}, dev_default=True).limits.user_sends_per_s == 0
