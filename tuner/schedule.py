"""Schedules: a retune as a GitHub Actions workflow, a Kubernetes CronJob, a systemd timer or a cron line."""
