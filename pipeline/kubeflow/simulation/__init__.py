"""Simulates a compiled pipeline on this machine by the rules of the open-source server.

It reads only the YAML, and runs what `pipeline.kubeflow.compiler` writes; anything else is rejected. `driver` walks
through the tasks, `launcher` runs each as a subprocess, a folder replaces the object store, and `cache` is a file that
replaces ML Metadata. Each module names its sources in kubeflow/pipelines 2.17.0 (paths below `backend/src`), and what
it does not simulate.
"""
