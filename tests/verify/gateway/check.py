"""Asks Latchkey through nginx: python3 check.py CONTROL

CONTROL is a JSON object: `port` and `plain` of nginx, `ca` of its certificate, `nodes`
as [port, process id] pairs, `logs`, what they write, and `nginx`, the command that
signals it. Every fault is a line; exit code 1 if there is one.
"""
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

CONTROL = json.loads(sys.argv[1])
NAME = "auth.example.com"
PERSON = {"email": "alice@example.com", "password": "correct horse battery"}
TLS = ssl.create_default_context(cafile=CONTROL["ca"])
faults = []


def check(holds: bool, what: str) -> None:
    if not holds:
        faults.append(what)


class Connection(http.client.HTTPSConnection):
    """To nginx by its name, from one of the addresses of this machine."""

    def __init__(self, source: str):
        super().__init__(NAME, CONTROL["port"], context=TLS, timeout=30, source_address=(source, 0))

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", CONTROL["port"]), self.timeout, self.source_address)
        self.sock = TLS.wrap_socket(plain, server_hostname=NAME)


def ask(method, path, body=None, headers=(), source="127.0.0.2", connection=None):
    """The status, the headers and the JSON of an answer."""
    connection = connection or Connection(source)
    text = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    head = {"Host": NAME, **({"Content-Type": "application/json"} if text is not None else {}), **dict(headers)}
    connection.request(method, path, text, head)
    answer = connection.getresponse()
    text = answer.read()
    is_json = "json" in answer.headers.get("Content-Type", "")
    return answer.status, answer.headers, json.loads(text) if is_json else text


def log_in(source, headers=()):
    return ask("POST", "/login", PERSON, headers, source)


def tls_and_login() -> str:
    status, headers, _ = ask("POST", "/register", PERSON)
    check(status == 201, f"register: {status}")
    check(headers.get("Strict-Transport-Security") is not None, "no Strict-Transport-Security")
    status, headers, tokens = log_in("127.0.0.2")
    check(status == 200, f"login: {status} {tokens}")
    check(headers.get("Server") == "nginx", f"nginx tells its version: {headers.get('Server')}")
    version = subprocess.run(
        ["curl", "-sS", "-o", os.devnull, "-w", "%{http_version} %{http_code}", "--http2", "--noproxy", "*", "--cacert",
         CONTROL["ca"], "--resolve", f"{NAME}:{CONTROL['port']}:127.0.0.1", f"https://{NAME}:{CONTROL['port']}/health"],
        capture_output=True, text=True, timeout=30)
    check(version.stdout == "2 200", f"HTTP/2: {version.stdout} {version.stderr}")
    plain = http.client.HTTPConnection("127.0.0.1", CONTROL["plain"], timeout=30)
    plain.request("GET", "/docs?x=1", headers={"Host": NAME})
    answer = plain.getresponse()
    leads_to = answer.headers.get("Location")
    check((answer.status, leads_to) == (308, f"https://{NAME}/docs?x=1"), f"plain HTTP: {answer.status} {leads_to}")
    old = ssl.create_default_context(cafile=CONTROL["ca"])
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    try:
        with socket.create_connection(("127.0.0.1", CONTROL["port"]), 30) as plain:
            old.wrap_socket(plain, server_hostname=NAME)
        faults.append("TLS 1.1 is taken")
    except OSError:
        pass
    return tokens["access_token"]


FORGED = [
    {"X-Forwarded-For": "203.0.113.9"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"Forwarded": "for=203.0.113.9"},
    {"X-Real-IP": "203.0.113.9"},
    {"X-Forwarded-For": "203.0.113.9, 127.0.0.1", "True-Client-IP": "203.0.113.9"},
]


def address_is_real(token: str) -> None:
    """A session's `ip` is what Latchkey takes for the client's address."""
    for headers in FORGED:
        status, _, tokens = log_in("127.0.0.3", headers)
        check(status == 200, f"login with {headers}: {status}")
    _, _, found = ask("GET", "/me/sessions", headers={"Authorization": f"Bearer {token}"})
    addresses = sorted(session["ip"] for session in found["sessions"])
    check(addresses == ["127.0.0.2"] + ["127.0.0.3"] * len(FORGED), f"addresses of sessions: {addresses}")


def traces_are_our_own() -> None:
    """Latchkey believes its proxies about what is recorded, so a stranger's word must end at nginx."""
    ours, theirs = "1" * 32, "2" * 32
    node = http.client.HTTPConnection("127.0.0.1", CONTROL["nodes"][0][0], timeout=30)
    node.request("GET", "/health", headers={"traceparent": f"00-{ours}-{'3' * 16}-01"})
    node.getresponse().read()
    for _ in range(4):
        ask("GET", "/health", headers={"traceparent": f"00-{theirs}-{'3' * 16}-01", "tracestate": "a=b"})
    written = lambda: "".join(open(log).read() for log in CONTROL["logs"])
    deadline = time.monotonic() + 10
    # The line of the last answer is a moment behind it.
    while ours not in written() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    check(ours in written(), "a node does not log the trace that it is told of")
    check(theirs not in written(), "nginx hands on the trace of a stranger")


def limits() -> None:
    """Latchkey's own limit of logins is 20 a minute here, for each node: 40 at once, and 40 more in a minute."""
    answers = [log_in("127.0.0.4", FORGED[n % len(FORGED)]) for n in range(60)]
    refused = [(headers, body) for status, headers, body in answers if status == 429]
    check(len(refused) >= 5, f"{len(refused)} of 60 logins refused")
    for headers, body in refused:
        check(body["code"] in ("rate_limited", "too_many_attempts"), f"refused by {body}")
        check(int(headers.get("Retry-After", 0)) >= 1, "429 without Retry-After")
    check(log_in("127.0.0.5")[0] == 200, "somebody else is refused as well")
    # nginx's own is 50 a second and 100 beside; these ask no node for more than it can bear.
    found = []
    def flood():
        connection = Connection("127.0.0.6")
        for _ in range(60):
            found.append(ask("GET", "/health", source="127.0.0.6", connection=connection))
    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [(headers, body) for status, headers, body in found if status == 429]
    check({status for status, _, _ in found} == {200, 429}, f"a flood: {sorted({s for s, _, _ in found})}")
    for headers, body in refused[:20]:
        check(headers.get("Retry-After") == "1" and body["code"] == "rate_limited", f"a flood is refused by {body}")
        check(headers.get("Content-Type") == "application/problem+json", "a problem of another type")
        check(headers.get("X-Request-Id") == body["request_id"], "a problem with another id")


def refused_at_the_door() -> None:
    for path in ("/metrics", "/health/live", "/health/ready", "/health/../metrics", "//metrics", "/%6detrics"):
        status, _, _ = ask("GET", path)
        check(status == 404, f"{path}: {status}")
    status, _, body = ask("POST", "/login", b"{" + b" " * 16384)
    # nginx's own words: Latchkey would say so too, and close the connection while nginx still writes.
    check(status == 413 and body["detail"] == "A body has 16 KiB at most.", f"17 KiB: {status} {body}")
    status, _, body = ask("POST", "/login", b" " * 16000 + b"{}")
    check(status == 422, f"16 KB: {status} {body}")
    status, _, body = ask("GET", "/me", headers={"X-Long": "x" * 9000})
    check(status == 431 and body["code"] == "header_too_large", f"a long head: {status} {body}")
    status, headers, body = ask("GET", "/me", headers={"X-Request-Id": "mine"})
    check(status == 401 and body["request_id"] == headers["X-Request-Id"] != "mine", f"ids: {body}")


class Load:
    """Requests without a pause, until told to stop; `found` counts statuses."""

    def __init__(self, method, path, body=None):
        self.found, self.going = {}, True
        self.thread = threading.Thread(target=self.run, args=(method, path, body))

    def run(self, method, path, body):
        while self.going:
            try:
                status = ask(method, path, body, source="127.0.0.7")[0]
            except OSError as error:
                status = repr(error)
            self.found[status] = self.found.get(status, 0) + 1
            # Under nginx's limit.
            time.sleep(0.03)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.going = False
        self.thread.join()


def reload() -> None:
    with Load("GET", "/health") as load:
        time.sleep(0.5)
        subprocess.run([*CONTROL["nginx"], "-s", "reload"], check=True, timeout=30, capture_output=True)
        time.sleep(1.5)
    check(set(load.found) == {200} and load.found[200] >= 10, f"while nginx reloads: {load.found}")


def node_dies() -> None:
    status, _, tokens = log_in("127.0.0.8")
    check(status == 200, f"login after the reload: {status}")
    token = tokens.get("access_token")
    _, victim = CONTROL["nodes"][0]
    with Load("GET", "/.well-known/jwks.json") as load:
        time.sleep(0.5)
        os.kill(victim, signal.SIGKILL)
        time.sleep(1.5)
    check(set(load.found) == {200} and load.found[200] >= 10, f"while a node dies: {load.found}")
    for n in range(10):
        status, _, body = log_in(f"127.0.0.{20 + n}")
        check(status == 200, f"login with one node: {status} {body}")
    status, _, body = ask("GET", "/me", headers={"Authorization": f"Bearer {token}"})
    check(status == 200 and body["email"] == PERSON["email"], f"a token with one node: {status} {body}")
    status, _, _ = ask("DELETE", "/me/sessions", headers={"Authorization": f"Bearer {token}"})
    check(status == 204, f"DELETE with one node: {status}")


def nobody_is_left() -> None:
    os.kill(CONTROL["nodes"][1][1], signal.SIGKILL)
    time.sleep(0.2)
    for method in ("GET", "POST", "DELETE"):
        status, headers, body = ask(method, "/me/sessions", {} if method == "POST" else None)
        check(status == 503 and body["code"] == "unavailable" and headers.get("Retry-After") == "1",
              f"{method} with no node: {status} {body}")


def once() -> None:
    """Nodes that break off after they have seen a request: only GET may go to the other."""
    seen = []
    nodes = []
    for port, _ in CONTROL["nodes"]:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        nodes.append(listener)

        def serve(listener=listener):
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    seen.append(connection.recv(65536).split(b" ", 1)[0].decode())
        threading.Thread(target=serve, daemon=True).start()
    for method, times in ("GET", 2), ("POST", 1), ("PATCH", 1), ("PUT", 1), ("DELETE", 1):
        # A node that failed is left alone; here for a second, as nginx counts them.
        time.sleep(2.1)
        del seen[:]
        ask(method, "/me", None if method == "GET" else {})
        check(seen == [method] * times, f"{method} on connections that break: {seen}")
    for listener in nodes:
        listener.close()


def main() -> None:
    token = tls_and_login()
    address_is_real(token)
    traces_are_our_own()
    refused_at_the_door()
    limits()
    reload()
    node_dies()
    nobody_is_left()
    once()
    for fault in faults:
        print(fault)
    sys.exit(bool(faults))


main()
