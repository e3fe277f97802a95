"""What every answer of Latchkey has to be, beyond what schemathesis knows.

Schemathesis loads this file (SCHEMATHESIS_HOOKS) and calls each check with every answer it gets.
"""

import json

import schemathesis

PROBLEM = "application/problem+json"
# Reasons about the shape of a body, which a JSON schema can tell. Those about a value, such as a password that is too
# short, it cannot.
SHAPE = {"exactly_one", "missing", "unknown_field", "unsupported", "wrong_type"}
EVERYWHERE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
OF_JSON = {"content-security-policy": "default-src 'none'; frame-ancestors 'none'"}
CHALLENGES = {"invalid_token": 'Bearer error="invalid_token"', "missing_token": "Bearer"}


def header(response, name):
    """The value of a header that is there at most once, or None."""
    values = response.headers.get(name) or []
    assert len(values) <= 1, f"{name} is there {len(values)} times"
    return values[0] if values else None


def media_type(response):
    return (header(response, "content-type") or "").partition(";")[0].strip()


def problem(response):
    """The problem in an answer, or None."""
    if media_type(response) != PROBLEM or not response.content:
        return None
    return json.loads(response.content)


@schemathesis.check
def problem_codes(ctx, response, case):
    """Every refusal is a problem, of a code that its operation is documented to answer with that status."""
    if response.status_code < 400:
        return
    assert response.content or response.request.method == "HEAD", "a refusal without a body"
    if not response.content:
        return
    body = problem(response)
    assert body is not None, f"a refusal that is no {PROBLEM}"
    code = body.get("code")
    if response.request.method.lower() != case.operation.method.lower():
        # Another method than the one that is documented: `unsupported_method` has an eye on the status.
        listed = {"method_not_allowed"}
    else:
        documented = case.operation.definition.raw["responses"].get(str(response.status_code))
        if documented is None:
            return  # `status_code_conformance` tells.
        listed = set(documented["description"].split(", "))
    assert code in listed, f"{response.status_code} {code}, documented: {', '.join(sorted(listed))}"


@schemathesis.check
def problem_members(ctx, response, case):
    """The members of a problem agree with each other and with the head of the answer."""
    body = problem(response)
    if body is None:
        return
    assert body["status"] == response.status_code, f"status {body['status']} in a {response.status_code}"
    issuer = case.operation.schema.raw_schema["servers"][0]["url"]
    assert body["type"] == f"{issuer}/docs/errors#{body['code']}", f"the type is {body['type']}"
    assert body["request_id"] == header(response, "x-request-id"), "request_id is not X-Request-Id"
    assert "errors" not in body or response.status_code == 422, f"errors in a {response.status_code}"
    if response.status_code == 401 and body["code"] in CHALLENGES:
        challenge = header(response, "www-authenticate")
        assert challenge == CHALLENGES[body["code"]], f"WWW-Authenticate is {challenge}"


@schemathesis.check
def common_headers(ctx, response, case):
    """The headers that every answer has."""
    assert header(response, "x-request-id"), "no X-Request-Id"
    kept = case.operation.path.startswith("/.well-known/") and response.status_code < 400
    wanted = {**EVERYWHERE, **(OF_JSON if media_type(response).endswith("json") else {})}
    if not kept:
        wanted["cache-control"] = "no-store"
    for name, value in wanted.items():
        assert header(response, name) == value, f"{name} is {header(response, name)}, not {value}"
    if response.status_code in (429, 503):
        seconds = header(response, "retry-after") or ""
        assert seconds.isdecimal() and int(seconds) >= 1, f"Retry-After is {seconds or 'missing'}"


@schemathesis.check
def documented_bodies(ctx, response, case):
    """No body that the document allows is refused for its shape.

    In the place of schemathesis' `positive_data_acceptance`, which would want every e-mail address that is a string to
    be taken.
    """
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    body = problem(response) or {}
    reasons = {fault["code"] for fault in body.get("errors", [])}
    shape = body.get("code") in ("malformed_json", "unknown_field", "unsupported_media_type")
    shape = shape or (body.get("code") == "invalid_body" and (not reasons or bool(reasons & SHAPE)))
    told = ", ".join(f"{fault['field']}: {fault['code']}" for fault in body.get("errors", []))
    assert not shape, f"a body as documented is refused: {body.get('code')} ({told})"
