"""The command line for this machine: inspect data, run the pipeline, use and inspect its results."""

from pipeline.cli.application import answer, application
from pipeline.cli.beam_workers import beam_workers
from pipeline.cli.doctor import doctor
from pipeline.cli.inspect import inspect
from pipeline.cli.lineage import lineage
from pipeline.cli.predict import predict
from pipeline.cli.report import report
from pipeline.cli.run import demo, run
from pipeline.cli.schedule import schedule
from pipeline.cli.schema import schema
from pipeline.cli.serve import serve
from pipeline.cli.status import status
from pipeline.cli.versions import pin, rollback, unblock, unpin

app = application("Train, evaluate and publish DeepLabV3+ models from labelled images.")
for command in (
    *(run, demo, inspect, predict, status, report, lineage),
    *(rollback, unblock, pin, unpin),
    *(beam_workers, serve, schedule, doctor, schema),
):
    app.command()(command)
app.command("readmit", hidden=True)(unblock)  # the former name of `unblock`

if __name__ == "__main__":
    answer(app)
