"""Fills a template of this folder into a page that needs no network: style, script, plotly.js and data, all inline."""

from collections.abc import Mapping
from typing import Any

from pluri.errors import UsageError


def rendered(template: str, content: Mapping[str, Any]) -> str:
    """The page. UsageError: a needed package is missing."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UsageError(f"the report needs the package {error.name}", do="pip install 'pluri[report]'") from None
    environment = Environment(
        loader=PackageLoader("pluri.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**content, plotlyjs=get_plotlyjs())
