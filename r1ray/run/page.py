"""The frame of a self-contained HTML page with charts: styles, colours of curves, and the script that shows values."""

import html
from pathlib import Path
from string import Template

from r1ray.run import charts


def page(title: str, *, subtitle: str, body: str) -> str:
    """The whole page. `title` and `subtitle` are text, `body` is HTML."""
    colours = "\n".join(
        f"svg .c{i} {{ stroke: var(--c{i}); }} svg .f{i} {{ fill: var(--c{i}); }} .b{i} {{ background: var(--c{i}); }}"
        for i in range(8)
    )
    return Template((Path(__file__).with_name("report_template.html")).read_text()).substitute(
        title=html.escape(title),
        subtitle=html.escape(subtitle),
        body=body,
        colours=colours,
        left=charts.LEFT,
        right=charts.RIGHT,
        top=charts.TOP,
        bottom=charts.BOTTOM,
    )
