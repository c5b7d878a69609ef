"""Results as files for people: results.json, README.md and plots in one directory."""

from __future__ import annotations

from pathlib import Path

from penstock_rl.evaluation import plots, results, tables
from penstock_rl.evaluation.policies import presented
from penstock_rl.evaluation.results import Results

RESULTS = "results.json"
PAGE = "README.md"
MOST_PANELS = 24  # of a plot, and sections of a page: more scenarios are shown as a set alone


def report(found: Results, out: Path, heading: str = "Evaluation", text: str = "") -> str:
    """Write results, tables and plots of them; return the table to be printed."""
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULTS).write_text(results.dump(found))
    shown = presented(found)
    each = len(shown.scenarios) <= MOST_PANELS
    files = {"gap.svg": plots.set_plot(shown)}
    if each:
        files["scenarios.svg"] = plots.scenario_plot(shown)
    pictures = "\n\n".join(f"![{Path(name).stem}]({name})" for name in files)
    page = tables.page(shown, heading, "\n\n".join(filter(None, [text, pictures])), each=each)
    for name, content in {**files, PAGE: page}.items():
        (out / name).write_text(content)
    return tables.set_table(shown)
