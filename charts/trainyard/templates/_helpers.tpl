{{/* Name of all objects of the release: "trainyard" for a release of that name. */}}
{{- define "trainyard.name" -}}
{{- if contains "trainyard" .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-trainyard" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "trainyard.selector" -}}
app.kubernetes.io/name: trainyard
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end -}}

{{- define "trainyard.labels" -}}
{{ include "trainyard.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "trainyard.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "trainyard.name" .) -}}
{{- end -}}

{{/* The image: [registry/]repository, then @digest or :tag. */}}
{{- define "trainyard.image" -}}
{{- with .Values.image -}}
{{- $name := ternary .repository (printf "%s/%s" .registry .repository) (empty .registry) -}}
{{- if .digest -}}
{{- printf "%s@%s" $name .digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the controller may do, in its namespace or in all of them. */}}
{{- define "trainyard.rules" -}}
- apiGroups: [trainyard.dev]
  resources: [queuebindings]
  verbs: [get, list, watch, patch]
- apiGroups: [trainyard.dev]
  resources: [queuebindings/status]
  verbs: [get, patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# Pods are made by Jobs alone; `create` serves the dry run by which a template is judged before a task is taken.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create]
# The end of a dead pod's log, which it could not send itself.
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
# By name, as a binding refers to them: never listed.
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get]
# Whose pull secrets a task's pod gets: an image registry is asked with them (imageCheck, useEntrypoint).
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get]
# Why a pod cannot be made or does not start is only told by Events.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update, patch]
{{- if .Values.rbac.kueue }}
# What Kueue says of a Job that waits for quota (capacity: Kueue).
- apiGroups: [kueue.x-k8s.io]
  resources: [localqueues, workloads]
  verbs: [get, list]
{{- end }}
{{- end -}}
