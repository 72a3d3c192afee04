"""Errors as problem details (RFC 9457), each with a stable code for programs."""

from http import HTTPStatus

from ninja import Schema

CONTENT_TYPE = "application/problem+json"

UNAUTHENTICATED = "unauthenticated"
SCOPE_MISSING = "scope_missing"
NOT_FOUND = "not_found"
INVALID = "invalid"
FORBIDDEN = "forbidden"


class Problem(Schema):
    """RFC 9457 section 3; `code` is ours: one of this module's, or a denial code."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str


class ProblemError(Exception):
    """The request comes to nothing; what the client is told."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail

    def body(self) -> dict[str, object]:
        """Return the body of the answer."""
        return Problem(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            code=self.code,
        ).dict()


def not_found() -> ProblemError:
    """Return what the unknown and the forbidden are both answered with."""
    return ProblemError(HTTPStatus.NOT_FOUND, NOT_FOUND, "There is no such thing.")
