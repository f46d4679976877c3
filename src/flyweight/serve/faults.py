"""What goes wrong in a request, in the one shape that OpenAI's clients read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Fault(Exception):
    """A refusal: an HTTP status, one line for a person, and names for programs.

    `param` is the field that it is about; `retry` the seconds after which to try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry = status, code, param, retry

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of it."""
        kind = _KINDS.get(self.status, "server_error" if self.status >= 500 else _INVALID)
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def headers(self) -> dict[str, str]:
        """What goes with it beside the body."""
        found = {} if self.retry is None else {"Retry-After": str(max(1, round(self.retry + 0.5)))}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def invalid(error: Mapping[str, Any], place: Sequence[Any]) -> Fault:
    """Pydantic's first complaint about a request, and the field that it is about."""
    param = ".".join(map(str, place)) or None
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "this service does not know this field"
    told = f"{param or 'The request'}: {message}"[:500]
    return Fault(400, told, param=param, code="invalid_value")


_INVALID = "invalid_request_error"
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}


__all__ = ["Fault", "invalid"]
