"""A rehearsal of a compiled pipeline on this machine, by the rules of the open-source server.

It reads the YAML alone, and runs what `pipeline.kubeflow.compiler` writes; anything else is refused. `driver` walks
through the tasks, `launcher` runs each as a subprocess, a folder stands in for the object store, and `cache` is a file
in place of ML Metadata. Each module names its sources in kubeflow/pipelines 2.17.0 (paths below `backend/src`), and
what it does not simulate.
"""
