{{- /* Refuses values that the exporter or the kubelet would refuse. */ -}}
{{- define "exporter.check" -}}
{{- $prefix := "set externalUrl and routePrefix instead, which the probes follow" -}}
{{- range .Values.extraArgs }}
{{- if regexMatch "^--web\\.(external-url|route-prefix)(=|$)" . }}{{ fail (printf "extraArgs contains %s: %s" . $prefix) }}{{ end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- if regexMatch "^API_KEY_EXPORTER__WEB__(EXTERNAL_URL|ROUTE_PREFIX)$" .name }}{{ fail (printf "extraEnv contains %s: %s" .name $prefix) }}{{ end }}
{{- end }}
{{- if regexMatch "(?m)^[ \\t]*([\"']?web[\"']?[ \\t]*(\\.[ \\t]*|=[ \\t]*\\{([^}\\n]*[,. \\t])?))?[\"']?(external_url|route_prefix)[\"']?[ \\t]*=" (default "" .Values.config) }}{{ fail (printf "config contains web.external_url or web.route_prefix: %s" $prefix) }}{{ end }}
{{- $addresses := dict "listenAddress" .Values.listenAddress }}
{{- if .Values.webConfig.existingSecret }}
{{- $_ := set $addresses "webConfig.probeListenAddress" .Values.webConfig.probeListenAddress }}
{{- if eq (include "exporter.port" .Values.listenAddress) (include "exporter.port" .Values.webConfig.probeListenAddress) }}{{ fail "webConfig.probeListenAddress needs another port than listenAddress" }}{{ end }}
{{- end }}
{{- range $name, $address := $addresses }}
{{- $port := include "exporter.port" $address | atoi }}
{{- if or (lt $port 1) (gt $port 65535) }}{{ fail (printf "%s: the port must be from 1 to 65535" $name) }}{{ end }}
{{- if regexMatch "^(127\\.|\\[::1\\])" $address }}{{ fail (printf "%s: the kubelet and Prometheus cannot reach a loopback address" $name) }}{{ end }}
{{- end }}
{{- if regexMatch "^/(-/|api/|calendar\\.ics$)" .Values.telemetryPath }}{{ fail "telemetryPath must not be /calendar.ics or start with /-/ or /api/, which are taken" }}{{ end }}
{{- range list "name" "instance" "component" }}
{{- $label := printf "app.kubernetes.io/%s" . }}
{{- if hasKey (default dict $.Values.podLabels) $label }}{{ fail (printf "podLabels must not contain %s, which selects the pods" $label) }}{{ end }}
{{- end }}
{{- range .Values.extraVolumes }}
{{- if has .name (list "config" "tokens" "inventory" "web" "state") }}{{ fail (printf "extraVolumes: the chart already has a volume %s" .name) }}{{ end }}
{{- end }}
{{- $names := list }}
{{- range .Values.accounts }}
{{- if has .name $names }}{{ fail (printf "accounts: two are named %s" .name) }}{{ end }}
{{- $names = append $names .name }}
{{- with .baseUrl }}
{{- if regexMatch "^https?://[^/?#]*@" . }}{{ fail "accounts: baseUrl must not contain credentials" }}{{ end }}
{{- if and (hasPrefix "http://" .) (not (regexMatch "(?i)^http://(127\\.[0-9.]+|\\[::1\\]|localhost)(:[0-9]+)?(/|$)" .)) }}{{ fail (printf "accounts: baseUrl %s must use https, except on loopback" .) }}{{ end }}
{{- end }}
{{- with .interval }}
{{- $seconds := include "exporter.seconds" . | float64 }}
{{- if or (lt $seconds 5.0) (gt $seconds 86400.0) }}{{ fail (printf "accounts: interval %s must be from 5s to 24h" .) }}{{ end }}
{{- end }}
{{- end }}
{{- range $name := list "serviceMonitor" "podMonitor" "vmServiceScrape" }}
{{- $scrape := index $.Values $name }}
{{- /* An interval of 0 means that of Prometheus. */}}
{{- $interval := include "exporter.seconds" $scrape.interval | float64 }}
{{- if and $scrape.enabled (gt $interval 0.0) (lt $interval (include "exporter.seconds" $scrape.scrapeTimeout | float64)) }}{{ fail (printf "%s: scrapeTimeout must not exceed interval" $name) }}{{ end }}
{{- end }}
{{- end -}}

{{- /* The seconds of a duration such as "1m 30s". */ -}}
{{- define "exporter.seconds" -}}
{{- $units := dict "ms" 0.001 "s" 1 "m" 60 "h" 3600 "d" 86400 "w" 604800 "y" 31536000 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9]+ ?[a-z]+" . -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $factor := index $units (ternary "ms" (substr 0 1 $unit) (eq $unit "ms")) -}}
{{- $sum = addf $sum (mulf (regexFind "[0-9]+" . | float64) $factor) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}
