"""Simulates a compiled pipeline on this machine by the rules of the open-source server.

It reads only the YAML, and runs what `pipeline.kubeflow.compiler` writes; anything else is rejected. `driver` walks
through the tasks, with a file that replaces ML Metadata; `launcher` runs each as a subprocess, with a folder that
replaces the object store. Each module names its sources in kubeflow/pipelines 2.17.0 (paths below `backend/src`), and
what it does not simulate.
"""
