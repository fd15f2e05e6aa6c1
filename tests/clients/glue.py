"""Starts the incumbent's Kubernetes glue the way its own example does: queue, namespace, template, settings of the pod."""

import sys

from clearml_agent.glue.k8s import K8sIntegration

queue, namespace, template, settings = sys.argv[1:]
glue = K8sIntegration(
    k8s_pending_queue_name=f"{queue}-pending",
    template_yaml=template,
    clearml_conf_file=settings,
    namespace=namespace,
)
glue.k8s_daemon([queue], create_queue=True)
