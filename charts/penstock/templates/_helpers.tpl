{{/* Labels that select the operator's pods; they never change between versions. */}}
{{- define "penstock.operatorSelector" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/component: operator
{{- end }}

{{/* Labels of the chart's own objects. */}}
{{- define "penstock.labels" -}}
{{ include "penstock.operatorSelector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: penstock
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image's name; called with a list of the chart's context and the image's values. */}}
{{- define "penstock.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else if hasPrefix "@" $image.tag -}}
{{ $image.repository }}{{ $image.tag }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}
{{- end }}
