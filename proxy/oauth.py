"""OAuth's device login (RFC 8628) and refresh (RFC 6749, section 6), as conversations: pure, no socket, no clock.

A conversation is a generator: it yields what to do next (`Ask` a server, `Wait`, `Tell` the person), is sent the
server's answer to an `Ask`, or thrown the LoginError that there was none, and returns the `Token`.
"""

from collections.abc import Generator
from typing import Any, Final

import msgspec

from proxy.errors import scrub
from proxy.policy import Login

# A server that names no interval is asked every five seconds, and five seconds less often each time it complains.
_INTERVAL_S: Final = 5.0
# Clocks differ; a token asked for too early costs five seconds more each time.
_MARGIN: Final = 1.2
_DEVICE: Final = "urn:ietf:params:oauth:grant-type:device_code"
# Refresh so long before a token's end.
EARLY_S: Final = 300.0


class Token(msgspec.Struct, omit_defaults=True):
    """What a login gave; `expires_at` in Unix seconds, None: it does not expire. `client_id` is who may refresh it."""

    access_token: str
    refresh_token: str | None = None
    expires_at: float | None = None
    client_id: str = ""

    def stale(self, now: float) -> bool:
        """Say whether it is time to refresh it."""
        return self.refresh_token is not None and self.expires_at is not None and now > self.expires_at - EARLY_S


class Ask(msgspec.Struct, frozen=True):
    """POST `form` to `url`; the answer is its JSON object."""

    url: str
    form: dict[str, str]


class Wait(msgspec.Struct, frozen=True):
    """Do nothing for so long."""

    seconds: float


class Tell(msgspec.Struct, frozen=True):
    """Show a person where to enter the code, and for how long it is good."""

    address: str
    code: str
    seconds: float


class LoginError(Exception):
    """No token is to be had this way; the text says why. `final`: not even later."""

    def __init__(self, text: str, *, final: bool = True) -> None:
        super().__init__(text)
        self.final = final


Answer = dict[str, Any]
Conversation = Generator[Ask | Wait | Tell, Answer | None, Token]


def device_login(login: Login, client_id: str, now: float) -> Conversation:
    """Log a person in. `now` is when it begins, Unix seconds. Raises LoginError: refused, denied, or too late."""
    form = {"client_id": client_id} | ({"scope": login.scope} if login.scope else {})
    begun = (yield Ask(login.device_url, form)) or {}
    _check(begun)
    code, user_code = _text(begun, "device_code"), _text(begun, "user_code")
    left = _number(begun, "expires_in") or 900.0
    yield Tell(_text(begun, "verification_uri"), user_code, left)
    interval = _number(begun, "interval") or _INTERVAL_S
    waited = 0.0
    while True:
        yield Wait(_MARGIN * interval)
        waited += _MARGIN * interval
        form = {"client_id": client_id, "device_code": code, "grant_type": _DEVICE}
        try:
            answer = (yield Ask(login.token_url, form)) or {}
        except LoginError as lost:
            if lost.final:
                raise
            answer = {"error": "slow_down"}  # as the RFC wants it: ask less often, but go on
        error = answer.get("error")
        if error == "slow_down":
            interval = max(_number(answer, "interval") or 0.0, interval + 5.0)
        elif error != "authorization_pending":
            _check(answer)
            return _token(answer, client_id, now + waited, None)
        if waited > left:
            raise LoginError("the code was not entered in time")


def refresh(login: Login, token: Token, now: float) -> Conversation:
    """Replace a token that expires. Raises LoginError."""
    form = {"client_id": token.client_id, "grant_type": "refresh_token", "refresh_token": token.refresh_token or ""}
    answer = (yield Ask(login.token_url, form)) or {}
    _check(answer)
    return _token(answer, token.client_id, now, token.refresh_token)


def _token(answer: Answer, client_id: str, now: float, refresh_token: str | None) -> Token:
    lifetime = _number(answer, "expires_in")
    again = answer.get("refresh_token", refresh_token)  # a server that names no new one lets the old one live
    return Token(
        _text(answer, "access_token"),
        again if isinstance(again, str) else None,
        None if lifetime is None else now + lifetime,
        client_id,
    )


def _check(answer: Answer) -> None:
    error = answer.get("error")
    if error is not None:
        text = answer.get("error_description")
        raise LoginError(scrub(f"{error}: {text}" if text else str(error)))


def _text(answer: Answer, name: str) -> str:
    value = answer.get(name)
    # What is shown to a person or sent in a header must not hold line breaks or worse.
    if not isinstance(value, str) or not value or not (value.isascii() and value.isprintable()):
        raise LoginError(f"the server's answer has no usable {name!r}")
    return value


def _number(answer: Answer, name: str) -> float | None:
    value = answer.get(name)
    return float(value) if isinstance(value, int | float) and 0 < value < 1e9 else None
