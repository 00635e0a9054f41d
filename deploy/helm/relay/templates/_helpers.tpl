{{- define "relay.name" -}}
{{ .Values.fullnameOverride | default .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "relay.selector" -}}
app.kubernetes.io/name: relay
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "relay.labels" -}}
{{ include "relay.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* The pod of both kinds of store. */ -}}
{{- define "relay.pod" -}}
{{- $postgres := eq .Values.store "postgres" -}}
metadata:
  labels:
    {{- include "relay.selector" . | nindent 4 }}
  annotations:
    # The relay reads its configuration at startup, so a change replaces the pod.
    checksum/config: {{ .Values.config | sha256sum }}
    {{- if not .Values.serviceMonitor.enabled }}
    prometheus.io/scrape: "true"
    prometheus.io/port: "7001"
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $postgres }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "relay.selector" . | nindent 10 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    # Gives the volumes to the group of the relay.
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- if $postgres }}
  initContainers:
    # The relay refuses a key file that is a symbolic link or that others can read, and the files of a secret are both.
    - name: key
      image: {{ .Values.postgres.keyImage | quote }}
      command: [sh, -c, "umask 077 && cp /etc/relay-secret/relay.key /run/relay/relay.key"]
      securityContext:
        {{- include "relay.restricted" . | nindent 8 }}
      volumeMounts:
        - {name: secret, mountPath: /etc/relay-secret, readOnly: true}
        - {name: key, mountPath: /run/relay}
  {{- end }}
  containers:
    - name: relay
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve, --config, /etc/relay/relay.toml]
      {{- if or $postgres .Values.tls.secretName }}
      env:
        {{- if $postgres }}
        - {name: RELAY__STORAGE__KIND, value: postgres}
        - {name: RELAY__STORAGE__POSTGRES__DSN, value: {{ .Values.postgres.dsn | quote }}}
        - {name: RELAY__STORAGE__POSTGRES__PASSWORD_PATH, value: /etc/relay-secret/password}
        - {name: RELAY__STORAGE__POSTGRES__CA_PATH, value: /etc/relay-secret/ca.crt}
        - {name: RELAY__PRIVACY__KEY_PATH, value: /run/relay/relay.key}
        {{- end }}
        {{- if .Values.tls.secretName }}
        - {name: RELAY__MODE, value: tls}
        - {name: RELAY__TLS__CERT_PEM_PATH, value: /etc/relay-tls/tls.crt}
        - {name: RELAY__TLS__KEY_PEM_PATH, value: /etc/relay-tls/tls.key}
        {{- end }}
      {{- end }}
      ports:
        - {name: http, containerPort: 7000}
        - {name: metrics, containerPort: 7001}
      # The probes use the admin port, which clients do not use, and which is always clear text. /health succeeds
      # whatever the state of the store: if it fails, only a restart helps. /ready fails while the relay cannot serve.
      startupProbe:
        httpGet: {path: /health, port: metrics}
        periodSeconds: 1
        failureThreshold: 60
      readinessProbe:
        httpGet: {path: /ready, port: metrics}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: {{ ternary 2 1 $postgres }}
      livenessProbe:
        httpGet: {path: /health, port: metrics}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "relay.restricted" . | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/relay, readOnly: true}
        {{- if $postgres }}
        - {name: secret, mountPath: /etc/relay-secret, readOnly: true}
        - {name: key, mountPath: /run/relay, readOnly: true}
        {{- else }}
        - {name: data, mountPath: /var/lib/relay}
        {{- end }}
        {{- if .Values.tls.secretName }}
        - {name: tls, mountPath: /etc/relay-tls, readOnly: true}
        {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "relay.name" . }}}
    {{- if $postgres }}
    - name: secret
      secret: {secretName: {{ .Values.postgres.secretName | quote }}, defaultMode: 0440}
    - name: key
      emptyDir: {medium: Memory}
    {{- end }}
    {{- with .Values.tls.secretName }}
    - name: tls
      secret: {secretName: {{ . | quote }}, defaultMode: 0440}
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
{{- end }}

{{- define "relay.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
