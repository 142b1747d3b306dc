"""The schedule's metrics in Prometheus' text format, read from its state at each scrape."""

from collections.abc import Iterable
from contextlib import suppress

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from components.publishing.directory import served
from data.errors import WorkspaceError
from pipeline.schedule.state import KEPT, ScheduledRun, ScheduleState


class ScheduleCollector(Collector):
    """Exports the schedule's state as metrics; a value that does not exist yet is left out.

    Args:
        state: The state of the schedule.
        serving: The serving directory of its model.
    """

    def __init__(self, state: ScheduleState, serving: str):
        self._state = state
        self._serving = serving

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """Called at each scrape."""
        runs = self._state.last(KEPT)
        for name, (text, value) in self._gauges(runs).items():
            if value is not None:
                yield GaugeMetricFamily(name, text, value=value)
        images = GaugeMetricFamily("deeplab_images", "Images of the last run that read data.", labels=["split"])
        for split, number in next((run.images for run in runs if run.images), {}).items():
            images.add_metric([split], number)
        yield images
        total = CounterMetricFamily("deeplab_schedule_runs", "Runs that ended, by result.", labels=["result"])
        for result, number in sorted(self._state.counts().items()):
            total.add_metric([result], number)
        yield total

    def _gauges(self, runs: list[ScheduledRun]) -> dict[str, tuple[str, float | None]]:
        """Name of each gauge -> its description and value."""
        ended = [run for run in runs if run.succeeded or run.result == "failed"]
        success = next((position for position, run in enumerate(ended) if run.succeeded), None)
        last = ended[0] if ended else None
        times = [run.ended.timestamp() if run.ended else None for run in ended]
        plan = self._state.plan
        version = None
        with suppress(WorkspaceError):  # A damaged record must not hide the other metrics.
            version = served(self._serving)
        return {
            "deeplab_schedule_last_success_timestamp_seconds": (
                "When a run last ended without failing.",
                times[success] if success is not None else None,
            ),
            "deeplab_schedule_last_run_timestamp_seconds": (
                "When a run last ended.",
                times[0] if times else None,
            ),
            "deeplab_schedule_last_run_duration_seconds": (
                "What the last run took, retries included.",
                last.seconds if last else None,
            ),
            "deeplab_schedule_last_run_attempts": (
                "How often the last run was tried.",
                last.attempts if last else None,
            ),
            "deeplab_schedule_consecutive_failures": (
                "Failed runs since the last one that succeeded.",
                len(ended) if success is None else success,
            ),
            "deeplab_schedule_running": (
                "1 while a run is in progress.",
                float(bool(runs and runs[0].result == "running")),
            ),
            "deeplab_schedule_next_run_timestamp_seconds": (
                "When cron begins the next run.",
                plan.next_run.timestamp() if plan and plan.next_run else None,
            ),
            "deeplab_candidate_mean_iou": (
                "Mean IoU of the model evaluated last, on the test split, 0 to 1.",
                next((run.mean_iou for run in ended if run.mean_iou is not None), None),
            ),
            "deeplab_served_version": (
                "The version being served.",
                version.version if version else None,
            ),
            "deeplab_quarantined_images": (
                "Images quarantined in the last run that read data.",
                next((run.quarantined for run in ended if run.quarantined is not None), None),
            ),
        }


def registry(state: ScheduleState, serving: str) -> CollectorRegistry:
    """A registry with only the schedule's metrics."""
    metrics = CollectorRegistry()
    metrics.register(ScheduleCollector(state, serving))
    return metrics
