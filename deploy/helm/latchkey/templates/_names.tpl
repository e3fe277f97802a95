{{- define "latchkey.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "latchkey.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* A component tells the server's pods from those of the migration. */}}
{{- define "latchkey.serverSelector" -}}
{{ include "latchkey.selector" . }}
app.kubernetes.io/component: server
{{- end }}

{{- define "latchkey.labels" -}}
{{ include "latchkey.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "latchkey.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "latchkey.name" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{- define "latchkey.image" -}}
{{- $repository := required "image.repository: name the image that the Dockerfile made" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end }}

{{/* The host of the public URL. */}}
{{- define "latchkey.host" -}}
{{- (urlParse .Values.publicUrl).hostname -}}
{{- end }}
