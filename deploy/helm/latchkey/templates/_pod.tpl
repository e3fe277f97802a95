{{/* What the server's pods and those of the migration share. */}}

{{/* The restricted profile of the pod security standards. 65532 is the image's user. */}}
{{- define "latchkey.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
# The folder of keys is readable by this group, and by no others.
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "latchkey.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities:
  drop: [ALL]
{{- end }}

{{/* Secrets by the name of their setting; those that nobody named are left out. */}}
{{- define "latchkey.secrets" -}}
{{- $secrets := dict "DATABASE_URL" .Values.database "REDIS_URL" .Values.redis "SMTP_URL" .Values.smtp "LATCHKEY_SECRET" .Values.serverSecret "LATCHKEY_PEPPER" .Values.pepper -}}
{{- range $name, $secret := $secrets }}
{{- if $secret.existingSecret }}
{{ $name }}: {{ toJson $secret }}
{{- end }}
{{- end }}
{{- end }}

{{- define "latchkey.env" -}}
- name: LATCHKEY_PUBLIC_URL
  value: {{ required "publicUrl: say where people reach the server, as https://auth.example.com" .Values.publicUrl | quote }}
- name: LATCHKEY_LISTEN
  value: 0.0.0.0:3000
- name: LATCHKEY_INTERNAL_LISTEN
  value: 0.0.0.0:3001
- name: LATCHKEY_DATA_DIR
  value: /data
- name: LATCHKEY_JWT_DIR
  value: /jwt
{{- range $name, $_ := include "latchkey.secrets" . | fromYaml }}
- name: {{ $name }}_FILE
  value: /run/secrets/latchkey/{{ $name }}
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "latchkey.volumeMounts" -}}
# Empty, since people live in PostgreSQL and mails go by SMTP.
- name: data
  mountPath: /data
- name: keys
  mountPath: /jwt
  readOnly: true
- name: secrets
  mountPath: /run/secrets/latchkey
  readOnly: true
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "latchkey.volumes" -}}
- name: data
  emptyDir:
    sizeLimit: 16Mi
- name: keys
{{- if .Values.keys.existingClaim }}
  persistentVolumeClaim:
    claimName: {{ .Values.keys.existingClaim }}
    readOnly: true
{{- else }}
  # Whole, not by subPath: only so does a running node see a key that is added.
  secret:
    secretName: {{ .Values.keys.existingSecret }}
    defaultMode: 0440
{{- end }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
    {{- range $name, $secret := include "latchkey.secrets" . | fromYaml }}
      - secret:
          name: {{ $secret.existingSecret }}
          items:
            - key: {{ $secret.key }}
              path: {{ $name }}
    {{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "latchkey.scheduling" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Faults that a schema of single values cannot see. */}}
{{- define "latchkey.check" -}}
{{- $_ := required "database.existingSecret: name the Secret with DATABASE_URL" .Values.database.existingSecret -}}
{{- $_ := required "smtp.existingSecret: name the Secret with SMTP_URL" .Values.smtp.existingSecret -}}
{{- if and .Values.keys.existingSecret .Values.keys.existingClaim -}}
{{- fail "keys: a Secret or a claim, not both" -}}
{{- end -}}
{{- if not (or .Values.keys.existingSecret .Values.keys.existingClaim) -}}
{{- fail "keys.existingSecret or keys.existingClaim: name the folder that `latchkey keys generate` filled" -}}
{{- end -}}
{{- if lt (int .Values.terminationGracePeriodSeconds) (add 30 (int .Values.preStopSleepSeconds)) -}}
{{- fail "terminationGracePeriodSeconds: at least 30 more than preStopSleepSeconds, which running requests have" -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling.minReplicas: not above maxReplicas" -}}
{{- end -}}
{{- if and (or .Values.metrics.serviceMonitor.enabled .Values.metrics.prometheusRule.enabled) (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- fail "metrics: this cluster has no monitoring.coreos.com/v1 (the Prometheus operator); helm template takes --api-versions monitoring.coreos.com/v1" -}}
{{- end -}}
{{- end }}
