"""A rehearsal of a compiled pipeline on this machine, by the rules of the open-source server.

It reads the YAML alone. `driver` walks through the tasks, `launcher` runs each as a subprocess, `store` and `cache` are
folders and a file in place of the object store and of ML Metadata. Each module names its sources in kubeflow/pipelines
2.17.0 (paths below `backend/src`), and what it does not simulate.
"""
