"""The configuration sections for running a pipeline: Beam, Kubeflow, schedule, serving, retention and reports.

They are separate from the code that uses them, so that a command line can check a configuration without importing
TFX.
"""
