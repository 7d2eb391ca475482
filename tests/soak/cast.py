"""Who takes part in a soak: users, their devices and groups, and who sends the marks that show that all is caught up.

Every user's `phone` sends and receives; every other user has a `laptop` too, which only receives. The groups named `g…`
keep their members; into those named `c…` and out of them the users come and go as they like.
"""

from typing import NamedTuple

USERS = 12
GROUPS = 4
OPEN_GROUPS = ("c0", "c1")

users = tuple(f"u{number}" for number in range(USERS))


def groups_of(user: str) -> tuple[str, ...]:
    """The groups that a user never leaves."""
    number = int(user[1:])
    return tuple(sorted({f"g{number % GROUPS}", f"g{(number // GROUPS + 1) % GROUPS}"}))


def members(group: str) -> tuple[str, ...]:
    """Who is always in a group."""
    return tuple(user for user in users if group in groups_of(user))


class Actor(NamedTuple):
    """One device. `brings` its own offsets to `hello`, or leaves it to the server to know them."""

    user: str
    device: str
    sends: bool
    brings: bool


def actors() -> tuple[Actor, ...]:
    """Every device."""
    phones = [Actor(user, "phone", sends=True, brings=number % 2 == 0) for number, user in enumerate(users)]
    laptops = [Actor(user, "laptop", sends=False, brings=number % 4 == 0) for number, user in enumerate(users[::2])]
    return (*phones, *laptops)


def marks_for(user: str) -> frozenset[str]:
    """The streams on which a device of the user must see a mark, once all is well."""
    return frozenset({"all", f"user:{user}", *(f"group:{group}" for group in groups_of(user))})


def marks_by(user: str) -> tuple[str, ...]:
    """The streams that the user marks: a stream has one who does."""
    number = int(user[1:])
    marked = [f"user:{users[(number + 1) % USERS]}"]
    marked += [f"group:{group}" for group in groups_of(user) if members(group)[0] == user]
    return (*marked, *(("all",) if number == 0 else ()))
