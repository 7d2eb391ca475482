"""Scheduled jobs (trimming, idle devices, audit). This release has none yet: nothing is trimmed unless asked."""
