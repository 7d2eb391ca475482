"""Who somebody is, and what they may do: `SignIn` turns what is shown into a `Principal`, `may` decides by it."""

from service.auth.checks import acting_device, acting_user, check_may, given_once
from service.auth.permissions import Action, may, may_act_for
from service.auth.principal import Principal
from service.auth.sign_in import Credentials, SignIn
from service.auth.visitor import check_origin, credentials_of, with_cookie

__all__ = [
    "Action",
    "Credentials",
    "Principal",
    "SignIn",
    "acting_device",
    "acting_user",
    "check_may",
    "check_origin",
    "credentials_of",
    "given_once",
    "may",
    "may_act_for",
    "with_cookie",
]
