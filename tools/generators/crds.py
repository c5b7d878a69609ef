"""CustomResourceDefinitions, for kubectl and for the chart."""

from __future__ import annotations

from pathlib import Path

from penstock_api import KINDS
from penstock_api.schema import render_crd

from tools.generators.output import CHART, MANIFESTS, Files, dump

_SOURCE = "crds/penstock_api"

_CHART_HEAD = "{{- if .Values.crds.enabled }}\n"
_CHART_FOOT = "{{- end }}\n"
_KEEP = """\
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""


def render() -> Files:
    """Return one file per kind and place."""
    files: dict[Path, str] = {}
    for model in KINDS.values():
        text = dump([render_crd(model)], source=_SOURCE)
        name = f"{model.info.plural}.yaml"
        files[MANIFESTS / name] = text
        files[CHART / "templates" / "crds" / name] = _as_template(text)
    return files


def _as_template(text: str) -> str:
    if "{{" in text:
        raise ValueError("a CRD holds {{, which helm would expand")
    head, metadata, rest = text.partition("metadata:\n")
    return f"{_CHART_HEAD}{head}{metadata}{_KEEP}{rest}{_CHART_FOOT}"
