"""The command line for Kubeflow Pipelines: compile the pipeline, rehearse it here, run it on a cluster."""

from pipeline.cli.application import answer, application
from pipeline.cli.kubeflow_compile import compile_, tfjob
from pipeline.cli.kubeflow_server import schedule, submit
from pipeline.cli.kubeflow_simulate import simulate

app = application("Run the pipeline on open-source Kubeflow Pipelines v2.")
app.command("compile")(compile_)
for command in (tfjob, simulate, submit, schedule):
    app.command()(command)

if __name__ == "__main__":
    answer(app)
