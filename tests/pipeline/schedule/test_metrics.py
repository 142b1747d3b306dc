from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pipeline.schedule.metrics import registry
from pipeline.schedule.state import SchedulePlan, ScheduleState

NOW = datetime(2026, 3, 1, 3, tzinfo=UTC)


def scrape(state: ScheduleState, serving: Path) -> dict[str, float]:
    """Name with labels -> value, as Prometheus reads them."""
    text = generate_latest(registry(state, str(serving))).decode()
    return {
        sample.name + "".join(f"/{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_before_the_first_run_nothing_is_claimed(tmp_path: Path):
    assert scrape(ScheduleState(tmp_path / "state.sqlite"), tmp_path / "serving") == {
        "deeplab_schedule_consecutive_failures": 0,
        "deeplab_schedule_running": 0,
    }


def test_the_metrics_are_those_of_the_last_runs(tmp_path: Path):
    state = ScheduleState(tmp_path / "state.sqlite")
    state.plan = SchedulePlan(cron="0 3 * * *", timezone="UTC", watch=False, next_run=NOW + timedelta(days=1))
    measured = {"mean_iou": 0.625, "images": {"train": 8, "val": 3}, "quarantined": 2}
    for hours, changes in enumerate([{"result": "pushed", **measured}, {"result": "failed"}, {"result": "failed"}]):
        ended = {"ended": NOW + timedelta(hours=hours), "seconds": 10.0 + hours, "attempts": hours + 1}
        state.end(state.begin("cron", NOW).model_copy(update={**changes, **ended}))
    state.begin("data", NOW)

    assert scrape(state, tmp_path / "serving") == {
        "deeplab_schedule_last_success_timestamp_seconds": NOW.timestamp(),
        "deeplab_schedule_last_run_timestamp_seconds": NOW.timestamp() + 2 * 3600,
        "deeplab_schedule_last_run_duration_seconds": 12,
        "deeplab_schedule_last_run_attempts": 3,
        "deeplab_schedule_consecutive_failures": 2,
        "deeplab_schedule_running": 1,
        "deeplab_schedule_next_run_timestamp_seconds": NOW.timestamp() + 86400,
        "deeplab_candidate_mean_iou": 0.625,
        "deeplab_quarantined_images": 2,
        "deeplab_images/train": 8,
        "deeplab_images/val": 3,
        "deeplab_schedule_runs_total/failed": 2,
        "deeplab_schedule_runs_total/pushed": 1,
    }


def test_the_served_version_is_told_and_a_damaged_one_hides_nothing_else(tmp_path: Path):
    state = ScheduleState(tmp_path / "state.sqlite")
    version = tmp_path / "serving" / "4"
    version.mkdir(parents=True)
    record = '{"version": 4, "model_fingerprint": "f", "class_names": [], "published_at": "2026-03-01T00:00:00Z"}'
    (version / "PUBLISHED").write_text(record)
    assert scrape(state, tmp_path / "serving")["deeplab_served_version"] == 4

    (version / "PUBLISHED").write_text("{")
    assert scrape(state, tmp_path / "serving")["deeplab_schedule_running"] == 0
