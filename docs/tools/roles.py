"""A griffe extension: the roles of reStructuredText in docstrings, as Markdown has them."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(class|meth|func|mod|attr|data|exc):`~?([^`]+)`")
_MATH = re.compile(r":math:`([^`]+)`")
_SUPERSCRIPT = re.compile(r"\\ :sup:`([^`]+)`")


def markdown(text: str, owner: str = "") -> str:
    """The same text with links and formulas in Markdown's way; bare names are looked for in `owner`."""
    text = _MATH.sub(lambda match: f"${' '.join(match[1].split())}$", text)
    text = _SUPERSCRIPT.sub(r"<sup>\1</sup>", text)
    return _ROLE.sub(lambda match: _link(match[1], match[2].lstrip("."), owner), text)


def _link(role: str, path: str, owner: str) -> str:
    """A link where the name is in the reference (autorefs knows when all pages are read), else the name."""
    *_, before, name = ["", *path.split(".")]
    shown = path if role == "mod" else f"{before}.{name}" if before[:1].isupper() else name
    target = path if "." in path else f"{owner}.{path}"
    if role == "mod" or not target.startswith("sparse_sts_index."):
        return f"`{shown}`"
    return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>'


class Roles(griffe.Extension):
    """Rewrites each docstring once, when its object is there."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            owner = obj.parent if obj.parent is not None and obj.parent.is_class else obj
            obj.docstring.value = markdown(obj.docstring.value, owner.path)
