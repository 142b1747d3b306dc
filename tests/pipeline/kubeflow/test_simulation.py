"""The simulation of a Kubeflow Pipelines server, on pipelines written by hand."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from data.errors import ProjectError
from pipeline.kubeflow.compiled_pipeline import CompiledPipeline
from pipeline.kubeflow.simulation.driver import SimulatedRun, not_simulated
from tests.pipeline.kubeflow.hand_made import ROOT, Pipeline, constant, log, of_run, of_task, states

PARAMETER = "<file %s>"
PATH = "<path %s>"
INPUT = "<input %s>"


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path, steps=("NUMBER_INTEGER", 3), rate=("NUMBER_DOUBLE", 0.125), name=("STRING", "rug"))


def reason(run: SimulatedRun, step: str) -> str:
    """Why a step went as it did."""
    return next(s.reason for s in run.steps if s.name == step)


def stored(run: SimulatedRun, task: str) -> list[str]:
    """Objects of a task, by their key below the task's own root."""
    folder = run.store.folder / "bucket/root/hand-made" / run.run_id / task
    return sorted(str(path.relative_to(folder)).split("/", 1)[1] for path in folder.rglob("*") if path.is_file())


def test_parameters_reach_a_step_from_constants_defaults_the_run_and_other_steps(pipeline: Pipeline) -> None:
    pipeline.shell("first", "printf %s made > $1", PARAMETER % "word", returns={"word": "STRING"})
    pipeline.shell(
        "second",
        "echo $@",
        *(f"<value {key}>" for key in "csrnw"),
        parameters={
            "c": constant("fixed"),
            "s": of_run("steps"),
            "r": of_run("rate"),
            "n": of_run("name"),
            "w": of_task("first", "word"),
        },
        types={"s": "NUMBER_INTEGER", "r": "NUMBER_DOUBLE"},
    )
    assert log(pipeline.run(), "second") == "fixed 3 0.125 rug made\n"
    assert log(pipeline.run("steps=7", "name=ball", "rate=0.5"), "second") == "fixed 7 0.5 ball made\n"


def test_the_executor_input_is_what_the_server_hands_over(pipeline: Pipeline) -> None:
    pipeline.shell("maker", "mkdir $1; echo 1 > $1/data", PATH % "made", writes=("made",))
    pipeline.shell(
        "reader", "echo \"$1\"", "{{$}}", artifacts={"given": ("maker", "made")}, parameters={"s": of_run("steps")},
        types={"s": "NUMBER_INTEGER"}, writes=("page",), returns={"score": "STRING"},
    )  # fmt: skip
    run = pipeline.run()
    given = json.loads(log(run, "reader"))
    (artifact,) = given["inputs"]["artifacts"]["given"]["artifacts"]
    assert artifact["name"].isdecimal(), "the id in ML Metadata"
    assert artifact["uri"].startswith(f"{ROOT}/hand-made/{run.run_id}/maker/")
    assert artifact["uri"].endswith("/made")
    assert artifact["metadata"]["display_name"] == "made"
    assert "type" not in artifact, "the server does not hand the type of an input over"
    assert given["inputs"]["parameterValues"] == {"s": 3}
    outputs = given["outputs"]
    assert outputs["artifacts"].keys() == {"page", "executor-logs"}
    assert outputs["artifacts"]["page"]["artifacts"][0]["type"]["schemaTitle"] == "system.Artifact"
    assert outputs["artifacts"]["executor-logs"]["artifacts"][0]["uri"].endswith("/executor-logs-0")
    assert outputs["outputFile"].endswith("/output_metadata.json")
    assert outputs["parameters"]["score"]["outputFile"].endswith("/outputs/score")


def test_inputs_are_downloaded_outputs_uploaded_and_the_mounts_removed(pipeline: Pipeline) -> None:
    pipeline.shell("maker", "mkdir -p $1/deep; echo 42 > $1/deep/data", PATH % "made", writes=("made",))
    pipeline.shell(
        "reader",
        "cat $1/deep/data; ls $DEEPLAB_MOUNT_ROOT/minio/bucket/root/hand-made/*; echo page > $2",
        INPUT % "given",
        PATH % "page",
        artifacts={"given": ("maker", "made")},
        writes=("page",),
    )
    pipeline.shell("other", "ls $DEEPLAB_MOUNT_ROOT/minio/bucket/root/hand-made/*", dependentTasks=["maker"])
    run = pipeline.run()
    assert run.succeeded
    assert stored(run, "maker") == ["executor-logs-0", "made/deep/data"]
    assert stored(run, "reader") == ["executor-logs-0", "page"]
    assert log(run, "reader").split() == ["42", "maker", "reader"]
    assert log(run, "other").split() == ["other"], "what is no input of a step is not there"
    assert sorted(path.name for path in run.logs.rglob("*")) == ["0.log"] * 3 + ["maker", "other", "reader"]


def test_a_step_starts_in_a_clean_environment(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAKED", "1")
    monkeypatch.setenv("PASSWORD", "open")
    pipeline.shell("look", "env; test -f pipeline/pipeline.py; python -c 'import data.errors'; touch here")
    pipeline.executors["exec-look"]["container"]["env"] = [{"name": "SIZE", "value": "9"}]
    key = {"secretKey": "word", "envVar": "PASSWORD"}
    pipeline.settings["exec-look"] = {"secretAsEnv": [{"secretName": "vault", "keyToEnv": [key]}]}
    run = pipeline.run()
    assert run.succeeded, log(run, "look")
    found = dict(line.split("=", 1) for line in log(run, "look").splitlines())
    assert found.keys() - {"PWD", "OLDPWD", "SHLVL", "_"} == {
        "PATH", "HOME", "TMPDIR", "PYTHONPATH", "DEEPLAB_MOUNT_ROOT", "SIZE", "PASSWORD",
    }  # fmt: skip
    assert found["SIZE"] == "9"
    assert found["PASSWORD"] == "open"
    assert not Path("here").exists(), "the working directory is the step's own"
    monkeypatch.delenv("PASSWORD")
    assert reason(pipeline.run(), "look") == "variable PASSWORD is not set; it replaces key word of a secret"


def test_the_log_is_an_artifact_even_of_a_step_that_fails(pipeline: Pipeline) -> None:
    pipeline.shell("noisy", "echo out; echo err >&2; exit 3", writes=("made",))
    run = pipeline.run()
    assert not run.succeeded
    assert reason(run, "noisy") == "exit status 3"
    assert stored(run, "noisy") == ["executor-logs-0"]
    (kept,) = (run.store.folder / "bucket").rglob("executor-logs-0")
    assert kept.read_text() == "out\nerr\n"


def test_what_depends_on_a_failed_step_is_omitted_and_the_rest_runs(pipeline: Pipeline) -> None:
    pipeline.shell("bad", "exit 1")
    pipeline.shell("after", "true", dependentTasks=["bad"])
    pipeline.shell("later", "true", dependentTasks=["after"])
    pipeline.shell("other", "true")
    run = pipeline.run()
    assert states(run) == {"bad": "failed", "after": "omitted", "later": "omitted", "other": "succeeded"}
    assert not run.succeeded


def test_a_step_that_is_killed_once_succeeds_by_a_retry(pipeline: Pipeline, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"if [ -e {mark} ]; then echo second; else touch {mark}; echo first; kill -9 $$; fi"
    pipeline.shell("shaky", script, retryPolicy={"maxRetryCount": 2, "backoffDuration": "30s"})
    run = pipeline.run()
    assert run.succeeded
    assert run.steps[0].attempts == 2
    assert (log(run, "shaky", 0), log(run, "shaky", 1)) == ("first\n", "second\n")
    assert stored(run, "shaky") == ["executor-logs-0", "executor-logs-1"]


def test_retries_end(pipeline: Pipeline) -> None:
    pipeline.shell("lost", "kill -9 $$", retryPolicy={"maxRetryCount": 1})
    run = pipeline.run()
    assert not run.succeeded
    assert run.steps[0].attempts == 2
    assert reason(run, "lost") == "killed by SIGKILL"


def test_without_a_policy_nothing_is_tried_again(pipeline: Pipeline) -> None:
    pipeline.shell("lost", "kill -9 $$")
    assert pipeline.run().steps[0].attempts == 1


EXECUTOR_OUTPUT = "printf '%s' \"$1\" > $(dirname $2)/output_metadata.json; echo 1 > $2"


def says(pipeline: Pipeline, output: dict[str, Any]) -> SimulatedRun:
    """A run of a step that writes one file and this executor output."""
    pipeline.shell("step", EXECUTOR_OUTPUT, json.dumps(output), PATH % "made", writes=("made",))
    return pipeline.run()


def artifact(**fields: Any) -> dict[str, Any]:
    """An executor output of one artifact."""
    return {"artifacts": {"made": {"artifacts": [fields]}}}


def test_metadata_reaches_the_next_step_in_the_form_of_ml_metadata(pipeline: Pipeline) -> None:
    pipeline.shell("next", 'echo "$1"', "{{$}}", artifacts={"given": ("step", "made")})
    run = says(pipeline, artifact(metadata={"n": 2, "word": "w", "yes": True, "many": [1], "deep": {"a": 1}}))
    metadata = json.loads(log(run, "next"))["inputs"]["artifacts"]["given"]["artifacts"][0]["metadata"]
    assert {key: metadata[key] for key in ("n", "word", "yes", "many", "deep")} == {
        "n": 2,
        "word": "w",
        "yes": 1,
        "many": {"list": [1]},
        "deep": {"struct": {"a": 1}},
    }


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (artifact(uri="minio://bucket/elsewhere"), "the executor output moves it from"),
        ({"artifacts": {"stranger": {}}}, "names undeclared outputs: stranger"),
        ({"parameterValues": {"word": "w"}}, "holds parameters; the simulator reads them from their files alone"),
        ({"outputs": {}}, "is not an executor output"),
    ],
)
def test_an_executor_output_that_is_wrong_fails_the_step(
    pipeline: Pipeline, output: dict[str, Any], message: str
) -> None:
    run = says(pipeline, output)
    assert states(run) == {"step": "failed"}
    assert message in reason(run, "step")


def test_an_output_parameter_that_is_not_written_fails_the_step(pipeline: Pipeline) -> None:
    pipeline.shell("step", "true", returns={"word": "STRING"})
    assert "output parameter word was not written: [Errno 2] No such file" in reason(pipeline.run(), "step")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("true", "output made: nothing was written where minio://bucket/root/"),
        ('mkdir -p "$1"; echo 1 > "$1/data"', "it wrote to a folder 'minio:'"),
        (
            "mkdir -p $DEEPLAB_MOUNT_ROOT/minio/b; echo 1 > $DEEPLAB_MOUNT_ROOT/minio/b/made",
            "nothing was written where",
        ),
    ],
)
def test_a_step_that_writes_to_a_wrong_place_fails_the_run(pipeline: Pipeline, script: str, message: str) -> None:
    pipeline.shell("step", script, "<uri made>", PATH % "made", writes=("made",))
    run = pipeline.run()
    assert not run.succeeded
    assert message in reason(run, "step")
    assert stored(run, "step") == ["executor-logs-0"]


@pytest.mark.parametrize(("metadata", "stands"), [({"present": 0}, True), ({"tfx_version": "1"}, False), ({}, False)])
def test_an_output_without_files_stands_if_the_step_says_why(
    pipeline: Pipeline, metadata: dict[str, Any], stands: bool
) -> None:
    script = 'printf "%s" "$1" > $(dirname $2)/output_metadata.json'
    pipeline.shell("step", script, json.dumps(artifact(metadata=metadata)), PATH % "made", writes=("made",))
    pipeline.shell("next", 'test ! -e "$1"', INPUT % "given", artifacts={"given": ("step", "made")})
    assert pipeline.run().succeeded is stands


def test_a_command_that_is_not_there_is_named(pipeline: Pipeline) -> None:
    pipeline.step("step", ["no-such-program"], [])
    assert reason(pipeline.run(), "step").startswith("cannot start no-such-program")


def test_processes_that_a_step_leaves_behind_end_with_it(pipeline: Pipeline) -> None:
    pipeline.shell("step", "sleep 600 & echo $!")
    run = pipeline.run()
    process = int(log(run, "step"))
    status = Path(f"/proc/{process}/stat")
    deadline = time.monotonic() + 60  # It takes a moment to die of a signal.
    while status.exists() and status.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def cached_pipeline(pipeline: Pipeline) -> None:
    """Two steps, one after the other, both cached."""
    pipeline.shell(
        "maker", "echo $3 > $1; printf %s $3 > $2", PATH % "made", PARAMETER % "word", "<value n>",
        parameters={"n": of_run("name")}, writes=("made",), returns={"word": "STRING"}, cache=True,
    )  # fmt: skip
    pipeline.shell(
        "reader",
        "cat $1",
        INPUT % "given",
        artifacts={"given": ("maker", "made")},
        parameters={"w": of_task("maker", "word")},
        cache=True,
    )
    pipeline.shell("always", "cat $1", INPUT % "given", artifacts={"given": ("maker", "made")})


def test_a_second_run_takes_steps_from_the_cache_and_their_outputs_serve(pipeline: Pipeline) -> None:
    cached_pipeline(pipeline)
    assert set(states(pipeline.run()).values()) == {"succeeded"}
    again = pipeline.run()
    assert states(again) == {"maker": "cached", "reader": "cached", "always": "succeeded"}
    assert log(again, "always") == "rug\n"
    assert again.succeeded


def test_a_changed_parameter_misses_the_cache_and_so_does_what_comes_after(pipeline: Pipeline) -> None:
    cached_pipeline(pipeline)
    pipeline.run()
    assert set(states(pipeline.run("name=ball")).values()) == {"succeeded"}
    assert states(pipeline.run())["reader"] == "cached", "the first result is still there"


def test_a_changed_command_misses_the_cache_for_everything_after_it(pipeline: Pipeline) -> None:
    cached_pipeline(pipeline)
    pipeline.run()
    pipeline.executors["exec-maker"]["container"]["image"] = "newer"
    assert states(pipeline.run()) == dict.fromkeys(("maker", "reader", "always"), "succeeded"), (
        "equal content under a new id is another artifact"
    )


def test_a_failed_step_is_not_cached(pipeline: Pipeline) -> None:
    pipeline.shell("bad", "exit 1", cache=True)
    pipeline.run()
    assert states(pipeline.run()) == {"bad": "failed"}


def test_what_the_server_refuses_is_refused_before_anything_runs(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.shell("step", f"touch {tmp_path}/ran")
    pipeline.tasks["step"]["componentRef"] = {"name": "missing"}
    with pytest.raises(ProjectError, match="missing"):
        pipeline.run()
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [("speed=1", "no parameter speed"), ("steps=many", "'many' is not of type NUMBER_INTEGER")],
)
def test_a_wrong_parameter_is_refused(pipeline: Pipeline, setting: str, message: str) -> None:
    pipeline.shell("step", "true")
    with pytest.raises(ProjectError, match=message):
        pipeline.run(setting)


def refused(pipeline: Pipeline) -> list[str]:
    """What the simulator says that it does not run."""
    with pytest.raises(ProjectError) as error:
        pipeline.run()
    first, *places = str(error.value).splitlines()
    assert first == "the simulator does not run:"
    assert not (pipeline.folder / "store").exists()
    return [place.strip() for place in places]


def test_what_the_compiler_never_writes_is_refused_by_name(pipeline: Pipeline) -> None:
    pipeline.shell("gated", "true", triggerPolicy={"condition": "inputs.parameter_values['n'] == 1.0"})
    pipeline.shell("tidy", "true", triggerPolicy={"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"})
    pipeline.shell("loop", "true", parameterIterator={"items": {"raw": "[1]"}, "itemInput": "n"})
    pipeline.shell("select", "true", parameters={"n": {**of_run("name"), "parameterExpressionSelector": "x"}})
    pipeline.shell("optional", '{"IfPresent": {}}')
    pipeline.shell("filled", "echo {{$.inputs.parameters['n']}}")
    pipeline.shell("counts", "true", returns={"count": "NUMBER_INTEGER"})
    pipeline.shell("defaults", "true", parameters={"n": of_run("name")})
    pipeline.components["defaults"]["inputDefinitions"]["parameters"]["n"]["defaultValue"] = "rug"
    pipeline.executors["exec-import"] = {"importer": {}}
    pipeline.components["group"] = {"dag": {"tasks": {"filled": pipeline.tasks["filled"]}}}
    pipeline.tasks["group"] = {"taskInfo": {"name": "group"}, "componentRef": {"name": "group"}}
    assert refused(pipeline) == [
        "components.counts: the output parameter count, which is not a STRING",
        "components.defaults.inputDefinitions.parameters.n.defaultValue",
        "components.group.dag",
        "deploymentSpec.executors.exec-filled: the placeholder echo {{$.inputs.parameters['n']}}; allowed: {{$}}",
        "deploymentSpec.executors.exec-import.importer",
        'deploymentSpec.executors.exec-optional: the placeholder {"IfPresent": {}}; allowed: {{$}}',
        "root.dag.tasks.gated.triggerPolicy",
        "root.dag.tasks.loop.parameterIterator",
        "root.dag.tasks.select.inputs.parameters.n.parameterExpressionSelector",
        "root.dag.tasks.tidy.triggerPolicy",
    ]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (constant("2"), "NUMBER_INTEGER"),
        (constant(2.0), "STRING"),
        (of_run("name"), "NUMBER_DOUBLE"),
        (of_task("word", "word"), "NUMBER_DOUBLE"),
        (constant("{{$.pipeline_job_name}}"), "STRING"),
    ],
)
def test_an_input_of_another_type_is_refused(pipeline: Pipeline, source: dict[str, Any], kind: str) -> None:
    pipeline.shell("word", "printf w > $1", PARAMETER % "word", returns={"word": "STRING"})
    pipeline.shell("step", "true", parameters={"n": source}, types={"n": kind})
    (place,) = refused(pipeline)
    assert place.startswith(f"root.dag.tasks.step: the input n, a {kind}, from {{'{next(iter(source))}': ")


def test_the_compiled_pipeline_is_one_that_is_simulated(compiled: CompiledPipeline) -> None:
    assert list(not_simulated(compiled.spec)) == []


def test_a_caller_that_is_interrupted_leaves_no_process(pipeline: Pipeline, tmp_path: Path) -> None:
    pipeline.shell("step", f"echo $$ > {tmp_path}/pid; sleep 0.5; kill -INT {os.getpid()}; sleep 600")
    with pytest.raises(KeyboardInterrupt):
        pipeline.run()
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
