"""The pipeline on open-source Kubeflow Pipelines v2."""
