"""What has to be true of docker-compose.yml: python3 compose.py FILE

FILE is the JSON that Compose's parser made of it. Every fault is a line; exit code 1 if
there is one.
"""
import json
import sys

PROJECT = json.load(open(sys.argv[1]))
SERVICES = PROJECT["services"]
faults = []


def check(holds: bool, what: str) -> None:
    if not holds:
        faults.append(what)


for name, service in SERVICES.items():
    check(service.get("read_only") is True, f"{name}: its root is writable")
    check(service.get("cap_drop") == ["ALL"], f"{name}: has capabilities")
    check("no-new-privileges:true" in service.get("security_opt", []), f"{name}: may gain privileges")
    check("privileged" not in service, f"{name}: is privileged")
    # The server's is its image's, and that one ends at once.
    check("healthcheck" in service or name in ("latchkey", "passwords"), f"{name}: nobody knows how it is")
    for port in service.get("ports", []):
        check(port.get("host_ip") == "127.0.0.1", f"{name}: port {port['target']} is published to the network")
    image = service.get("image", "")
    check("build" in service or ":" in image and not image.endswith(":latest"), f"{name}: {image} is not pinned")
    secrets = [key for key in service.get("environment") or {} if "PASSWORD" in key and not key.endswith("_FILE")]
    check(not secrets, f"{name}: {secrets} in the environment")
    check("user" in service or name in ("latchkey", "mailhog"), f"{name}: root, if the image says so")

latchkey = SERVICES["latchkey"]
conditions = {name: on["condition"] for name, on in latchkey["depends_on"].items()}
check(conditions == dict.fromkeys(["postgres", "redis", "mailhog"], "service_healthy"), f"latchkey waits for {conditions}")
check(set(SERVICES) == {"latchkey", "passwords", "postgres", "redis", "mailhog"}, f"services {set(SERVICES)}")
# Seconds that the program takes to stop are 30 and 15.
check(latchkey.get("stop_grace_period") == "50s", f"latchkey: {latchkey.get('stop_grace_period')} to stop")
check(SERVICES["passwords"].get("network_mode") == "none", "passwords: has a network")
for name in ("postgres", "redis"):
    made = SERVICES[name]["depends_on"]["passwords"]["condition"] == "service_completed_successfully"
    check(made, f"{name} does not wait for its password")
    check(list(SERVICES[name]["networks"]) == ["stores"], f"{name} is reached from elsewhere")
    check("ports" not in SERVICES[name], f"{name} is published")
check(PROJECT["networks"]["stores"].get("internal") is True, "the network of the stores has a way out")

for fault in faults:
    print(fault)
sys.exit(bool(faults))
