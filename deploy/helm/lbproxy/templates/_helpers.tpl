{{- define "lbproxy.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lbproxy.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lbproxy.labels" -}}
{{ include "lbproxy.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "lbproxy.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "lbproxy.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The config file: what the values say of `config`, over what follows from the others. */}}
{{- define "lbproxy.config" -}}
{{- if not (has .Values.shutdown.by (list "preStop" "lbproxy")) -}}
{{- fail "shutdown.by is preStop or lbproxy" -}}
{{- end -}}
{{- $delay := ternary (int .Values.shutdown.delaySeconds) 0 (eq .Values.shutdown.by "lbproxy") -}}
{{- $grace := add (int .Values.shutdown.graceSeconds) $delay -}}
{{- $token := ternary "${LBPROXY_TOKEN}" "off" (ne .Values.admin.tokenSecret.name "") -}}
{{- $admin := dict "bind" (printf "0.0.0.0:%d" (int .Values.admin.port)) "token" $token -}}
{{- $shutdown := dict "delay" (printf "%ds" $delay) "grace" (printf "%ds" $grace) -}}
{{- toYaml (merge (deepCopy .Values.config) (dict "admin" $admin "shutdown" $shutdown)) -}}
{{- end -}}
