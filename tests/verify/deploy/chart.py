"""What has to be true of the chart's objects: python3 chart.py FOLDER [PROGRAM]

FOLDER has NAME.yaml, as `helm template` printed them for ci/NAME-values.yaml. With
PROGRAM, a latchkey, `config check` has to accept the environment of each container.
Every fault is a line; exit code 1 if there is one.
"""
import base64
import os
import pathlib
import subprocess
import sys
import tempfile

import yaml

FOLDER = pathlib.Path(sys.argv[1])
PROGRAM = sys.argv[2] if len(sys.argv) > 2 else None

# A value that each secret takes, so that the program can read the file.
SAMPLES = {
    "DATABASE_URL": "postgres://latchkey:example@postgres.example.com/latchkey",
    "REDIS_URL": "rediss://:example@redis.example.com:6379",
    "SMTP_URL": "smtps://latchkey:example@smtp.example.com",
    "LATCHKEY_SECRET": base64.b64encode(os.urandom(32)).decode(),
    "LATCHKEY_PEPPER": "1:" + base64.b64encode(os.urandom(32)).decode(),
}

faults = []


def check(holds: bool, what: str) -> None:
    if not holds:
        faults.append(what)


class Release:
    """The objects of one values file."""

    def __init__(self, name: str):
        self.name = name
        self.objects = [o for o in yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text()) if o]

    def all(self, kind: str) -> list:
        return [o for o in self.objects if o["kind"] == kind]

    def one(self, kind: str, component: str | None = None) -> dict:
        found = [
            o for o in self.all(kind)
            if component is None or o["metadata"]["labels"]["app.kubernetes.io/component"] == component
        ]
        if len(found) != 1:
            sys.exit(f"{self.name}: {len(found)} objects of kind {kind} {component or ''}")
        return found[0]

    def check(self, holds: bool, what: str) -> None:
        check(holds, f"{self.name}: {what}")

    def pods(self) -> list:
        return [(o["kind"], o["spec"]["template"]) for o in self.all("Deployment") + self.all("Job")]


def restricted(release: Release, kind: str, template: dict) -> None:
    """The restricted profile of the pod security standards, and a root that is read-only."""
    pod = template["spec"]
    security = pod["securityContext"]
    release.check(security["runAsNonRoot"] is True, f"{kind}: may run as root")
    release.check(security["runAsUser"] == 65532 == security["fsGroup"], f"{kind}: not the image's user")
    release.check(security["seccompProfile"] == {"type": "RuntimeDefault"}, f"{kind}: no seccomp profile")
    release.check(pod["enableServiceLinks"] is False, f"{kind}: Services get into the environment")
    release.check(pod["automountServiceAccountToken"] is False, f"{kind}: has a token for the cluster")
    for word in ("hostNetwork", "hostPID", "hostIPC"):
        release.check(word not in pod, f"{kind}: {word}")
    kinds = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    for volume in pod["volumes"]:
        release.check(set(volume) - {"name"} <= kinds, f"{kind}: volume {volume}")
    for container in pod["containers"]:
        own = container["securityContext"]
        release.check(own["allowPrivilegeEscalation"] is False, f"{kind}: may escalate")
        release.check(own["readOnlyRootFilesystem"] is True, f"{kind}: its root is writable")
        release.check(own["capabilities"] == {"drop": ["ALL"]}, f"{kind}: has capabilities")
        release.check("memory" in container["resources"]["limits"], f"{kind}: no limit on memory")
        writable = [m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")]
        release.check(writable == ["/data"], f"{kind}: {writable} are writable")


def secrets_by_reference(release: Release, kind: str, template: dict) -> None:
    pod = template["spec"]
    release.check(not release.all("Secret"), "the chart holds a Secret")
    names = {variable["name"] for c in pod["containers"] for variable in c["env"]}
    release.check(not names & SAMPLES.keys(), f"{kind}: a secret in the environment: {names & SAMPLES.keys()}")
    [projected] = [v["projected"] for v in pod["volumes"] if "projected" in v]
    files = {item["path"] for source in projected["sources"] for item in source["secret"]["items"]}
    given = {name.removesuffix("_FILE") for name in names} & SAMPLES.keys()
    release.check(files == given, f"{kind}: files {files}, settings {given}")
    modes = [v["secret"].get("defaultMode") for v in pod["volumes"] if "secret" in v] + [projected.get("defaultMode")]
    release.check(set(modes) == {0o440}, f"{kind}: files that others may read: {modes}")


def settings_are_known(release: Release, kind: str, template: dict) -> None:
    """The program takes the environment that the pod would give it."""
    [container] = template["spec"]["containers"]
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    with tempfile.TemporaryDirectory() as empty:
        environment = {}
        for variable in container["env"]:
            value = variable["value"]
            setting = variable["name"].removesuffix("_FILE")
            if setting in SAMPLES:
                release.check(value == f"{mounts['secrets']}/{setting}", f"{kind}: {value} is not mounted")
                value = f"{empty}/{setting}"
                pathlib.Path(value).write_text(SAMPLES[setting] + "\n")
            environment[variable["name"]] = value
        asked = subprocess.run(
            [PROGRAM, "config", "check"], env=environment, cwd=empty, capture_output=True, text=True, timeout=30
        )
        release.check(asked.returncode == 0, f"{kind}: config check: {asked.stderr.strip()}")
        # One that is missing must be noticed, or this proves nothing.
        del environment["SMTP_URL_FILE"]
        asked = subprocess.run(
            [PROGRAM, "config", "check"], env=environment, cwd=empty, capture_output=True, text=True, timeout=30
        )
        release.check(asked.returncode == 2 and "SMTP_URL" in asked.stderr, f"{kind}: SMTP_URL is not missed")


def probes_ask_for_life_alone(release: Release) -> None:
    [container] = release.one("Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    release.check(ports == {"public": 3000, "internal": 3001}, f"ports {ports}")
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asks = container[probe]["httpGet"]
        release.check(asks == {"path": "/health/live", "port": "internal"}, f"{probe} asks {asks}")


def has_time_to_stop(release: Release) -> None:
    pod = release.one("Deployment")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    asleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    release.check(pod["terminationGracePeriodSeconds"] >= max(35, asleep + 30), "too little time to stop")


def selectors_meet(release: Release) -> None:
    """Services, budget and policy mean the server's pods, and never those of the migration."""
    server = release.one("Deployment")["spec"]["template"]["metadata"]["labels"]
    chosen = [o["spec"]["selector"] for o in release.all("Service")]
    chosen += [o["spec"]["selector"]["matchLabels"] for o in release.all("PodDisruptionBudget")]
    chosen += [o["spec"]["podSelector"]["matchLabels"] for o in release.all("NetworkPolicy")]
    chosen += [release.one("Deployment")["spec"]["selector"]["matchLabels"]]
    for selector in chosen:
        release.check(selector.items() <= server.items(), f"{selector} means no pod")
        for job in release.all("Job"):
            labels = job["spec"]["template"]["metadata"]["labels"]
            release.check(not selector.items() <= labels.items(), f"{selector} means the migration")
    public, internal = release.one("Service", "server")["spec"], release.one("Service", "internal")["spec"]
    release.check([p["targetPort"] for p in public["ports"]] == ["public"], "the public Service leads elsewhere")
    release.check([p["targetPort"] for p in internal["ports"]] == ["internal"], "the internal Service leads elsewhere")
    release.check(internal["type"] == "ClusterIP", "the internal Service leaves the cluster")


def needs_nothing_before_installation(release: Release) -> None:
    """Hooks come before all other objects, so the migration may mount none of them."""
    job = release.one("Job")
    hooks = job["metadata"]["annotations"]
    release.check(hooks["helm.sh/hook"] == "pre-install,pre-upgrade", f"migration: {hooks}")
    pod = job["spec"]["template"]["spec"]
    own = {o["metadata"]["name"] for o in release.all("ConfigMap") + release.all("ServiceAccount")}
    wanted = {v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v} | {pod["serviceAccountName"]}
    release.check(not own & wanted, f"migration: {own & wanted} are not there yet")
    [container] = pod["containers"]
    release.check(container["args"] == ["migrate"], f"migration: runs {container['args']}")


def main() -> None:
    minimal, full, claim = Release("minimal"), Release("full"), Release("claim")
    for release in (minimal, full, claim):
        for kind, template in release.pods():
            restricted(release, kind, template)
            secrets_by_reference(release, kind, template)
            if PROGRAM:
                settings_are_known(release, kind, template)
        probes_ask_for_life_alone(release)
        has_time_to_stop(release)
        selectors_meet(release)
    for release in (minimal, full):
        needs_nothing_before_installation(release)

    # Nobody reaches the internal port unless he is named.
    [ingress] = minimal.one("NetworkPolicy")["spec"]["ingress"]
    check([p["port"] for p in ingress["ports"]] == ["public"], "minimal: the internal port is open")
    public, internal = full.one("NetworkPolicy")["spec"]["ingress"]
    check([p["port"] for p in internal["ports"]] == ["internal"] and len(internal["from"]) == 1, "full: internal")
    check([p["port"] for p in public["ports"]] == ["public"] and len(public["from"]) == 1, "full: public")
    check(full.one("NetworkPolicy")["spec"]["policyTypes"] == ["Ingress", "Egress"], "full: egress is not limited")

    check("replicas" not in full.one("Deployment")["spec"], "full: the Deployment and the autoscaler both count")
    check(minimal.one("Deployment")["spec"]["replicas"] == 2, "minimal: two nodes")
    check(full.one("HorizontalPodAutoscaler")["spec"]["minReplicas"] == 3, "full: autoscaler")
    check(full.one("Ingress")["spec"]["rules"][0]["host"] == "auth.example.com", "full: the Ingress has another host")
    monitored = full.one("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    check(monitored.items() <= full.one("Service", "internal")["metadata"]["labels"].items(), "full: monitors nothing")
    check(not monitored.items() <= full.one("Service", "server")["metadata"]["labels"].items(), "full: monitors both")

    for kind in ("Job", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", "HorizontalPodAutoscaler", "Ingress"):
        check(not claim.all(kind), f"claim: there is a {kind}")
    volumes = claim.one("Deployment")["spec"]["template"]["spec"]["volumes"]
    check([v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v] == ["latchkey-keys"],
          "claim: the keys lie elsewhere")

    # Another setting or template has to be another pod. FOLDER/changed.yaml is `minimal` with one of each more.
    if (FOLDER / "changed.yaml").exists():
        before, after = (
            release.one("Deployment")["spec"]["template"]["metadata"]["annotations"]
            for release in (minimal, Release("changed"))
        )
        for name in ("checksum/settings", "checksum/mail-templates"):
            check(before[name] != after[name], f"{name} stays")

    for fault in faults:
        print(fault)
    sys.exit(bool(faults))


main()
