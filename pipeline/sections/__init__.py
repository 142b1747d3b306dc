"""The configuration sections of running a pipeline: where, how often, what is kept, what is shown.

They stand apart from the code that uses them, so that a command line can check a configuration without importing TFX.
"""
