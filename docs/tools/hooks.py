"""What mkdocs is told beyond its configuration.

The pages are read in two places, a checkout and the site, and their links are those of the checkout. So the pages at
the root of the repository become pages of the site, other files that a page shows or links to are copied beside them,
and links are rewritten accordingly. Formulas become MathML, which browsers show by themselves: no script is loaded.
"""

from __future__ import annotations

import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from sparse_sts_index.cli.main import main

ROOT = Path(__file__).parents[2]
#: Pages outside docs/, and what they are called in the site.
PAGES = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_SOURCES = {uri: name for name, uri in PAGES.items()}
_COPIES = "files/"  # where other files of the repository go

_COMMANDS = "<!-- commands -->"

_CODE = re.compile(r"^(`{3,}).*?^\1\s*$|^(?: {4}|\t)[^\n]*$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?(\))")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages of the root, and what any page shows or links to outside docs/."""
    for name, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    for file in list(files.documentation_pages()):
        for target in _targets(file):
            uri = _uri(target)
            if uri.startswith(_COPIES) and (ROOT / target).is_file() and files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Rewrite links to what they are in the site; put the commands in their place."""
    here = posixpath.dirname(page.file.src_uri)
    source = _source(page.file)

    def rewritten(match: re.Match[str]) -> str:
        head, target, anchor, tail = match.groups(default="")
        return head + posixpath.relpath(_uri(_resolved(source, target)), here or ".") + anchor + tail

    markdown = _outside_code(markdown, lambda text: _LINK.sub(rewritten, text))
    return markdown.replace(_COMMANDS, "\n".join(_command_lines())) if _COMMANDS in markdown else markdown


def on_page_content(content: str, **_: Any) -> str:
    """Put MathML in the place of formulas."""

    def converted(match: re.Match[str]) -> str:
        display = "block" if match[2] == "[" else "inline"
        formula = convert(html.unescape(match[3]).strip(), display=display)
        return re.sub(r'<mi mathvariant="double-struck">R</mi>', "<mi>\u211d</mi>", formula)

    return _FORMULA.sub(converted, content)


def _command_lines() -> Iterator[str]:
    """Every command as click describes it."""
    with click.Context(main, info_name="sparse-sts") as group:
        for name, command in main.commands.items():
            with click.Context(command, info_name=name, parent=group) as context:
                yield f"\n## {name}\n\n```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
                yield from re.sub(r"^ +", "", command.help or "", flags=re.MULTILINE).split("\n")
                yield "\n| option | |\n|---|---|"
                for parameter in command.params:
                    if (record := parameter.get_help_record(context)) is not None:
                        names, text = (html.escape(part).replace("|", "&#124;") for part in record)
                        yield f"| <code>{names}</code> | {text} |"


def _source(file: File) -> str:
    """Where a page is in the repository."""
    return _SOURCES.get(file.src_uri, f"docs/{file.src_uri}")


def _resolved(source: str, target: str) -> str:
    """A link's target, from the root of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _uri(target: str) -> str:
    """What a file of the repository is called in the site."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return PAGES.get(target, _COPIES + target)


def _targets(file: File) -> list[str]:
    found: list[str] = []

    def note(text: str) -> str:
        found.extend(_resolved(_source(file), match[2]) for match in _LINK.finditer(text))
        return text

    _outside_code(file.content_string, note)
    return found


def _outside_code(markdown: str, change: Any) -> str:
    """Apply a change to all that is not code."""
    parts, done = [], 0
    for match in _CODE.finditer(markdown):
        parts += [change(markdown[done : match.start()]), match[0]]
        done = match.end()
    return "".join([*parts, change(markdown[done:])])
