"""Tracking beside the store: the local log is the truth, W&B shows it, and nothing that W&B does can hurt a run."""

from qup.tracking.spec import Spec, run_id, study_folder
from qup.tracking.sync import sync_study, track_report, where_tracked
from qup.tracking.tracker import Tracker, open_tracker, stage_tracker

__all__ = ["Spec", "Tracker", "open_tracker", "run_id", "stage_tracker", "study_folder", "sync_study", "track_report", "where_tracked"]
