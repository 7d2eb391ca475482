"""Scheduled jobs: `waypost worker` runs them. One file a job, `runs.py` for what a run is, `__main__.py` for when."""
