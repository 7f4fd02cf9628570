"""A benchmark as one page of HTML that needs nothing else: no network, no script, light or dark as the reader likes."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from sparse_sts_index._utils.files import atomic_writer, os_errors_as
from sparse_sts_index.errors import DataError, MissingExtraError
from sparse_sts_index.evaluation.benchmarking import Benchmark
from sparse_sts_index.evaluation.report.charts import charts

REPORT_HTML, REPORT_JSON = "report.html", "report.json"


def render_html(result: Benchmark) -> str:
    """The page.

    Raises
    ------
    MissingExtraError
        Jinja2 or matplotlib is not installed.
    """
    check_extra()
    import jinja2

    environment: Any = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    source = resources.files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
    page: str = environment.from_string(source).render(run=result, charts=charts(result))
    return page


def check_extra() -> None:
    """Find out early that a page cannot be made.

    Raises
    ------
    MissingExtraError
        Jinja2 or matplotlib is not installed.
    """
    for package in ("jinja2", "matplotlib"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "bench") from error


def write_report(result: Benchmark, folder: str | Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.json``; their paths.

    Raises
    ------
    DataError
        They cannot be written.
    MissingExtraError
        Jinja2 or matplotlib is not installed.
    """
    folder = Path(folder)
    page = render_html(result)
    with os_errors_as(DataError, f"cannot write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    html, values = folder / REPORT_HTML, folder / REPORT_JSON
    with atomic_writer(values) as file:
        file.write(json.dumps(result.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    with atomic_writer(html) as file:
        file.write(page)
    return html, values
