{{/* Labels of every object. */}}
{{- define "penstock.labels" -}}
app.kubernetes.io/name: penstock
app.kubernetes.io/part-of: penstock
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* The image called .image of the root .root: registry, repository, and digest or tag. */}}
{{- define "penstock.image" -}}
{{- $all := .root.Values.images -}}
{{- $one := index $all .image -}}
{{- with $all.registry }}{{ . }}/{{ end -}}
{{- $one.repository -}}
{{- if $one.digest }}@{{ $one.digest }}{{ else }}:{{ $one.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* A Role in the namespace that is watched, or a ClusterRole. */}}
{{- define "penstock.role" -}}
{{- if .Values.watchNamespace }}Role{{ else }}ClusterRole{{ end -}}
{{- end }}

{{/* The name of the Secret with the router's certificate; empty without TLS. */}}
{{- define "penstock.tls" -}}
{{- $tls := .Values.router.tls -}}
{{- $tls.secretName | default (and $tls.certManager.issuerRef.name "penstock-router-tls") -}}
{{- end }}

{{/* Spread over nodes and zones of the component .component. */}}
{{- define "penstock.spread" -}}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      app.kubernetes.io/name: penstock
      app.kubernetes.io/component: {{ $.component }}
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}

{{- define "penstock.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "penstock.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where pods may run, of the values .values. */}}
{{- define "penstock.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "penstock.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The priority class of our pods; in namespaced mode none is made, so only one that exists. */}}
{{- define "penstock.priorityClass" -}}
{{- if not (and .Values.watchNamespace .Values.priorityClass.create) }}{{ .Values.priorityClass.name }}{{ end -}}
{{- end }}
