{{- /* Refuses values that the exporter or the kubelet would refuse. */ -}}
{{- define "exporter.check" -}}
{{- $prefix := "set externalUrl and routePrefix instead, which the probes follow" -}}
{{- range .Values.extraArgs }}
{{- if regexMatch "^--web\\.(external-url|route-prefix)(=|$)" . }}{{ fail (printf "extraArgs contains %s: %s" . $prefix) }}{{ end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if regexMatch "^API_KEY_EXPORTER__WEB__(EXTERNAL_URL|ROUTE_PREFIX)$" .name }}{{ fail (printf "extraEnv contains %s: %s" .name $prefix) }}{{ end }}
{{- end }}
{{- if regexMatch "(?m)^[^#\n]*\\b(external_url|route_prefix)\"?[ \\t]*=" (default "" .Values.config) }}{{ fail (printf "config contains web.external_url or web.route_prefix: %s" $prefix) }}{{ end }}
{{- $addresses := dict "listenAddress" .Values.listenAddress }}
{{- if .Values.webConfig.existingSecret }}
{{- $_ := set $addresses "webConfig.probeListenAddress" .Values.webConfig.probeListenAddress }}
{{- if eq .Values.listenAddress .Values.webConfig.probeListenAddress }}{{ fail "webConfig.probeListenAddress must differ from listenAddress" }}{{ end }}
{{- end }}
{{- range $name, $address := $addresses }}
{{- $port := include "exporter.port" $address | atoi }}
{{- if or (lt $port 1) (gt $port 65535) }}{{ fail (printf "%s: the port must be from 1 to 65535" $name) }}{{ end }}
{{- if regexMatch "^(127\\.|\\[::1\\])" $address }}{{ fail (printf "%s: the kubelet and Prometheus cannot reach a loopback address" $name) }}{{ end }}
{{- end }}
{{- if hasPrefix "/-/" .Values.telemetryPath }}{{ fail "telemetryPath must not start with /-/" }}{{ end }}
{{- $names := list }}
{{- range .Values.accounts }}
{{- if has .name $names }}{{ fail (printf "accounts: two are named %s" .name) }}{{ end }}
{{- $names = append $names .name }}
{{- with .baseUrl }}
{{- if regexMatch "^https?://[^/?#]*@" . }}{{ fail "accounts: baseUrl must not contain credentials" }}{{ end }}
{{- if and (hasPrefix "http://" .) (not (regexMatch "^http://(127\\.[0-9.]+|\\[::1\\]|localhost)(:[0-9]+)?(/|$)" .)) }}{{ fail (printf "accounts: baseUrl %s must use https, except on loopback" .) }}{{ end }}
{{- end }}
{{- end }}
{{- end -}}
