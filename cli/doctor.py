"""``sparse-sts doctor``."""

from __future__ import annotations

import json
import sys

import click

from .defaults import MODEL_VARIABLE, TRAINED_MODEL, chosen_model
from .output import one_line


@click.command()
@click.option("--format", type=click.Choice(["table", "json"]), default="table", show_default=True)
def doctor(format: str) -> None:
    """Show what is installed and what this machine has, and what is missed.

    Exits with 1 if something is missing without which nothing works. Loads no model and changes nothing.
    """
    from sparse_sts_index._utils.json import plain
    from sparse_sts_index.diagnosis import diagnose

    findings = []
    for finding in diagnose():
        findings.append(finding)
        if format == "table":
            state = "ok" if finding.found and not finding.missed else "MISSING" if finding.needed else "-"
            click.echo(f"{state:<8} {one_line(finding.name)}: {one_line(finding.found or 'no')}")
            if finding.missed:
                click.echo(f"{'':<8}   missed: {one_line(finding.missed)}")
    if format == "json":
        click.echo(json.dumps([plain(finding) for finding in findings], indent=2))
    else:
        click.echo(f"\nA command without --model takes: {chosen_model(None, quietly=True)}")
        click.echo(f"({MODEL_VARIABLE}, else {TRAINED_MODEL} in this folder, else the one in the box)")
    if any(finding.needed for finding in findings):
        sys.exit(1)
