"""Schemas for kubeconform: python3 schemas.py FROM TO VERSION,... [CRD.yaml ...]

FROM is the folder of schemas in the package kubernetes-validate. There all of a version
lie in one file that the others point into by the path of a web server; here each one
brings along what it points to, and TO/VERSION/KIND-GROUP-VERSION.json stands alone.
Resources of an operator are made strict as well: a field that they do not know is a
fault.
"""
import json
import pathlib
import re
import sys

import yaml

POINTER = re.compile(r'"\$ref": "[^"#]*#/\$defs/([^"]+)"')


def alone(schema: str, definitions: dict) -> str:
    """The schema, with all definitions that it leads to."""
    needed, open_ends = {}, set(POINTER.findall(schema))
    while open_ends:
        name = open_ends.pop()
        needed[name] = definitions[name]
        open_ends |= set(POINTER.findall(json.dumps(definitions[name]))) - needed.keys()
    whole = json.loads(schema)
    # A schema with a name of its own would be looked for under that name.
    whole.pop("$id", None)
    whole["$defs"] = needed
    return POINTER.sub(r'"$ref": "#/$defs/\1"', json.dumps(whole))


def strict(schema):
    """No field but those that are named."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: strict(part) for name, part in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    return schema


def main() -> None:
    source, target = map(pathlib.Path, sys.argv[1:3])
    versions = sys.argv[3].split(",")
    for version in versions:
        folder = source / f"v{version}-local-strict"
        definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
        (target / version).mkdir(parents=True)
        for file in folder.glob("*-*v[0-9]*.json"):
            (target / version / file.name).write_text(alone(file.read_text(), definitions))
    for resource in sys.argv[4:]:
        definition = yaml.safe_load(pathlib.Path(resource).read_text())["spec"]
        group = definition["group"].split(".")[0]
        for served in definition["versions"]:
            schema = strict(served["schema"]["openAPIV3Schema"])
            # Kubernetes checks these two elsewhere.
            schema["properties"]["metadata"] = {"type": "object"}
            name = f"{definition['names']['singular']}-{group}-{served['name']}.json"
            for version in versions:
                (target / version / name).write_text(json.dumps(schema))


main()
