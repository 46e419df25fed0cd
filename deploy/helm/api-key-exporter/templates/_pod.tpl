{{- /* The pod template of the Deployment, and of the StatefulSets of shards. */ -}}
{{- define "exporter.pod" -}}
metadata:
  labels:
    {{- include "exporter.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- if or (not .Values.configReloader.enabled) .Values.podAnnotations }}
  annotations:
    {{- if not .Values.configReloader.enabled }}
    # Replaces the pods when the configuration or the inventory changes.
    checksum/config: {{ printf "%s%s" (include "exporter.config" .) .Values.inventory.content | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
spec:
  serviceAccountName: {{ include "exporter.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  # Longer than web.shutdown_grace (5s).
  terminationGracePeriodSeconds: 10
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.dnsPolicy }}
  dnsPolicy: {{ . }}
  {{- end }}
  {{- with .Values.dnsConfig }}
  dnsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.hostAliases }}
  hostAliases:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: api-key-exporter
      image: {{ include "exporter.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        - --config.file=/etc/api-key-exporter/config.toml
        - {{ printf "--web.listen-address=%s" .Values.listenAddress | quote }}
        {{- if ne .Values.telemetryPath "/metrics" }}
        - {{ printf "--web.telemetry-path=%s" .Values.telemetryPath | quote }}
        {{- end }}
        {{- with .Values.externalUrl }}
        - {{ printf "--web.external-url=%s" . | quote }}
        {{- end }}
        {{- with .Values.routePrefix }}
        - {{ printf "--web.route-prefix=%s" . | quote }}
        {{- end }}
        {{- if .Values.webConfig.existingSecret }}
        - {{ printf "--web.config.file=/run/secrets/web/%s" .Values.webConfig.secretKey | quote }}
        - {{ printf "--web.probe-listen-address=%s" .Values.webConfig.probeListenAddress | quote }}
        {{- end }}
        {{- if gt (int .Values.shards) 1 }}
        - --total-shards={{ .Values.shards }}
        {{- end }}
        {{- range .Values.extraArgs }}
        - {{ . | quote }}
        {{- end }}
      env:
        # The last successful listing, kept across restarts of the container.
        - name: STATE_DIRECTORY
          value: /var/lib/api-key-exporter
        {{- if .Values.configReloader.enabled }}
        - name: API_KEY_EXPORTER__WEB__ENABLE_LIFECYCLE
          value: "true"
        {{- end }}
        {{- if gt (int .Values.shards) 1 }}
        - name: API_KEY_EXPORTER__SHARD__INDEX
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: metrics
          containerPort: {{ include "exporter.port" .Values.listenAddress }}
        {{- if .Values.webConfig.existingSecret }}
        # Without TLS and authentication, for the kubelet.
        - name: probes
          containerPort: {{ include "exporter.port" .Values.webConfig.probeListenAddress }}
        {{- end }}
      livenessProbe:
        httpGet:
          path: {{ include "exporter.probePrefix" . }}/-/healthy
          port: {{ include "exporter.probePort" . }}
        {{- with .Values.livenessProbe }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      readinessProbe:
        httpGet:
          path: {{ include "exporter.probePrefix" . }}/-/ready
          port: {{ include "exporter.probePort" . }}
        {{- with .Values.readinessProbe }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      {{- with .Values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: config
          mountPath: /etc/api-key-exporter
          readOnly: true
        # Without subPath, so that a rotated token is updated in the container.
        - name: tokens
          mountPath: /run/secrets/bitgpt
          readOnly: true
        {{- if include "exporter.inventory" . }}
        - name: inventory
          mountPath: /etc/api-key-exporter-inventory
          readOnly: true
        {{- end }}
        {{- if .Values.webConfig.existingSecret }}
        - name: web
          mountPath: /run/secrets/web
          readOnly: true
        {{- end }}
        - name: state
          mountPath: /var/lib/api-key-exporter
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- if .Values.configReloader.enabled }}
    - name: config-reloader
      image: {{ .Values.configReloader.image | quote }}
      args:
        - --watched-dir=/etc/api-key-exporter
        {{- if include "exporter.inventory" . }}
        - --watched-dir=/etc/api-key-exporter-inventory
        {{- end }}
        - --reload-url={{ include "exporter.reloadUrl" . }}
      resources:
        {{- toYaml .Values.configReloader.resources | nindent 8 }}
      {{- with .Values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      volumeMounts:
        - name: config
          mountPath: /etc/api-key-exporter
          readOnly: true
        {{- if include "exporter.inventory" . }}
        - name: inventory
          mountPath: /etc/api-key-exporter-inventory
          readOnly: true
        {{- end }}
    {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "exporter.fullname" . }}
    # One volume, however many accounts there are.
    - name: tokens
      projected:
        # 0440, so that the pod's group can read them.
        defaultMode: 288
        sources:
          {{- range $index, $account := .Values.accounts }}
          - secret:
              name: {{ $account.existingSecret | quote }}
              items:
                - key: {{ default "token" $account.secretKey | quote }}
                  path: {{ printf "%d/token" $index | quote }}
          {{- end }}
    {{- with include "exporter.inventory" . }}
    - name: inventory
      configMap:
        name: {{ . }}
    {{- end }}
    {{- with .Values.webConfig.existingSecret }}
    - name: web
      secret:
        secretName: {{ . | quote }}
        defaultMode: 288
    {{- end }}
    - name: state
      emptyDir:
        sizeLimit: 64Mi
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
