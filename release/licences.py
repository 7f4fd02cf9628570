"""Check the licences of an SBOM against licences.toml; write them down: `make licences`.

    licences.py third-party.md < sbom.json

A package has to be allowed whole: all parts of an AND, one of an OR, each of several licences that its metadata names.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from boolean import Expression
from license_expression import LicenseSymbol, LicenseWithExceptionSymbol, get_spdx_licensing

POLICY = tomllib.loads((Path(__file__).parent / "licences.toml").read_text(encoding="utf-8"))
SPDX = get_spdx_licensing()

_HEAD = """# Licences

What sparse-sts-index needs, or may be asked to use, in the versions of `requirements/` for Linux and Python 3.11.
`make licences` writes this page from the metadata of the packages, completed by `release/licences.toml`, and fails on a
licence that is not on the list there. [Supply chain](supply-chain.md#licences) has what a table cannot say.

The project itself is Apache-2.0. Its wheel contains nothing of others but what its model was trained from
(`sparse_sts_index/models/DATA.md`).
"""
_SCOPES = {
    "required": "Installed with the package",
    "optional": "Installed with an extra",
    "excluded": "Development only",
}


def allowed(expression: Expression) -> bool:
    """Whether the policy admits a licence, or a combination of several."""
    if isinstance(expression, LicenseSymbol | LicenseWithExceptionSymbol):
        return expression.render() in POLICY["allowed"]
    return (all if expression.operator.strip() == "AND" else any)(allowed(part) for part in expression.args)


def licences(component: dict[str, Any]) -> str:
    """The licence of a component as one SPDX expression; empty if nobody says."""
    entries = component.get("licenses", [])
    named = [entry.get("expression") or entry["license"].get("id") for entry in entries]
    if not any(named):
        named = [POLICY["classifiers"].get(entry["license"]["name"]) for entry in entries]
    return " AND ".join(f"({name})" if " OR " in name and len(named) > 1 else name for name in named if name)


def main() -> None:
    """Check, and write."""
    components = json.load(sys.stdin)["components"]
    wrong, text = [], _HEAD
    for scope, title in _SCOPES.items():
        text += f"\n## {title}\n\n| package | licence |\n|---|---|\n"
        for component in sorted(components, key=lambda component: component["name"].lower()):
            if component["scope"] != scope:
                continue
            rows = {component["name"]: licences(component)}
            for part in component.get("components", []):
                rows[f"{component['name']}: {part.get('description', part['name'])}"] = licences(part)
            for name, licence in rows.items():
                text += f"| {name} | {licence or 'not stated'} |\n"
                if not licence or not allowed(SPDX.parse(licence, validate=False)):
                    wrong.append(f"{name}: {licence or 'no licence stated'}")
    if wrong:
        sys.exit("not on the list of release/licences.toml:\n" + "\n".join(wrong))
    Path(sys.argv[1]).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
