{{- define "exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "exporter.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "exporter.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "exporter.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* The name of the first StatefulSet; short enough for the labels that Kubernetes derives from it. */ -}}
{{- define "exporter.shardsName" -}}
{{- include "exporter.fullname" . | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* Shards have a headless Service, under another name because clusterIP cannot be changed. */ -}}
{{- define "exporter.serviceName" -}}
{{- if gt (int .Values.shards) 1 -}}
{{- include "exporter.fullname" . | trunc 54 | trimSuffix "-" }}-headless
{{- else -}}
{{- include "exporter.fullname" . -}}
{{- end -}}
{{- end -}}

{{- define "exporter.selector" -}}
app.kubernetes.io/name: {{ include "exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "exporter.labels" -}}
{{ include "exporter.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "exporter.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "exporter.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "exporter.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- /* The port of an address such as ":10120" or "[::]:10120". */ -}}
{{- define "exporter.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{- /* The port of a URL, or the default port of its scheme. */ -}}
{{- define "exporter.urlPort" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- default (ternary "80" "443" (eq $url.scheme "http")) $port -}}
{{- end -}}

{{- /* The configured name of the ConfigMap with the inventory; empty without an inventory. */ -}}
{{- define "exporter.inventory" -}}
{{- if .Values.inventory.existingConfigMap -}}
{{- .Values.inventory.existingConfigMap -}}
{{- else if .Values.inventory.content -}}
{{- include "exporter.fullname" . }}-inventory
{{- end -}}
{{- end -}}

{{- /* Where the sidecar reloads the exporter: on loopback, unless it listens on one address only. */ -}}
{{- define "exporter.reloadUrl" -}}
{{- $host := regexReplaceAll ":[0-9]+$" .Values.listenAddress "" -}}
{{- if has $host (list "" "0.0.0.0") }}{{ $host = "127.0.0.1" }}{{ end -}}
{{- if eq $host "[::]" }}{{ $host = "[::1]" }}{{ end -}}
{{- $scheme := ternary .Values.webConfig.scheme "http" (not (empty .Values.webConfig.existingSecret)) -}}
{{ $scheme }}://{{ $host }}:{{ include "exporter.port" .Values.listenAddress }}{{ include "exporter.prefix" . }}/-/reload
{{- end -}}

{{- /* The endpoint of a ServiceMonitor, PodMonitor or VMServiceScrape. The latter names the
       relabelings differently. */ -}}
{{- define "exporter.endpoint" -}}
{{- $values := .root.Values -}}
{{- $scheme := .scrape.scheme -}}
{{- if and (not $scheme) $values.webConfig.existingSecret -}}
{{- $scheme = $values.webConfig.scheme -}}
{{- end -}}
port: metrics
path: {{ include "exporter.prefix" .root }}{{ $values.telemetryPath }}
interval: {{ .scrape.interval }}
scrapeTimeout: {{ .scrape.scrapeTimeout }}
honorLabels: {{ .scrape.honorLabels }}
{{- with $scheme }}
scheme: {{ . }}
{{- end }}
{{- with .scrape.tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .scrape.basicAuth }}
basicAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .scrape.authorization }}
authorization:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .scrape.relabelings }}
{{ $.relabelings }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .scrape.metricRelabelings }}
{{ $.metricRelabelings }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* Metadata of an object that makes Prometheus scrape the exporter, and the selector of it. */ -}}
{{- define "exporter.scrapeMetadata" -}}
metadata:
  name: {{ include "exporter.fullname" .root }}
  {{- with .scrape.namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "exporter.labels" .root | nindent 4 }}
    {{- with .scrape.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .scrape.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "exporter.scrapeSelector" -}}
# The value of this label becomes the job label.
jobLabel: app.kubernetes.io/name
{{- if .scrape.namespace }}
namespaceSelector:
  matchNames: [{{ .root.Release.Namespace }}]
{{- end }}
selector:
  matchLabels:
    {{- include "exporter.selector" .root | nindent 4 }}
{{- end -}}

{{- /* A number as digits: Helm reads numbers as floats, and writes large ones as 1.2e+07. */ -}}
{{- define "exporter.text" -}}
{{- if kindIs "float64" . }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{- /* Every JSON string is a valid TOML string, so toJson quotes values. */ -}}
{{- define "exporter.config" -}}
{{- if include "exporter.inventory" . -}}
inventory_file = {{ printf "/etc/api-key-exporter-inventory/%s" .Values.inventory.key | toJson }}

{{ end -}}
{{- with .Values.config }}{{ . | trim }}

{{ end -}}
{{- range $index, $account := .Values.accounts }}
{{- if $index }}

{{ end -}}
[[accounts]]
name = {{ $account.name | toJson }}
{{- with $account.provider }}
provider = {{ . | toJson }}
{{- end }}
{{- with $account.params }}
{{- range $name, $value := . }}
params.{{ $name | toJson }} = {{ include "exporter.text" $value | toJson }}
{{- end }}
{{- end }}
token_file = {{ printf "/run/secrets/bitgpt/%d/token" $index | toJson }}
{{- with $account.baseUrl }}
base_url = {{ . | toJson }}
{{- end }}
{{- with $account.expectedEnv }}
expected_env = {{ . | toJson }}
{{- end }}
{{- with $account.caFile }}
ca_file = {{ . | toJson }}
{{- end }}
{{- with $account.proxyUrl }}
proxy_url = {{ . | toJson }}
{{- end }}
{{- with $account.interval }}
interval = {{ . | toJson }}
{{- end }}
{{- end }}
{{ end -}}

{{- /* The port that the kubelet probes. */ -}}
{{- define "exporter.probePort" -}}
{{- if .Values.webConfig.existingSecret }}probes{{ else }}metrics{{ end -}}
{{- end -}}

{{- /* The prefix of all paths, without a slash at its end. */ -}}
{{- define "exporter.prefix" -}}
{{- $path := (urlParse (default "" .Values.externalUrl)).path -}}
{{- default $path .Values.routePrefix | trimAll "/" | printf "/%s" | trimSuffix "/" -}}
{{- end -}}

{{- /* The probe listener has no prefix. */ -}}
{{- define "exporter.probePrefix" -}}
{{- if not .Values.webConfig.existingSecret }}{{ include "exporter.prefix" . }}{{ end -}}
{{- end -}}
