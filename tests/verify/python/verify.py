"""Verifies an access token of Latchkey and prints whose it is: python3 verify.py TOKEN"""
import os
import sys

import jwt

ISSUER = os.environ.get("ISSUER", "http://localhost:3000")
# Make it once: it keeps the keys, and fetches them anew when a token names one that it has not seen.
KEYS = jwt.PyJWKClient(f"{ISSUER}/.well-known/jwks.json")


def verify(token: str) -> dict:
    verified = jwt.decode_complete(
        token,
        KEYS.get_signing_key_from_jwt(token),
        algorithms=["ES256"],
        issuer=ISSUER,
        audience=ISSUER,  # or what LATCHKEY_AUDIENCE says
        leeway=5,
        options={"require": ["iss", "aud", "exp", "sub"]},
    )
    if verified["header"].get("typ") != "at+jwt":  # PyJWT does not look at it
        raise jwt.InvalidTokenError("not an access token")
    return verified["payload"]


print(verify(sys.argv[1])["sub"])
