"""What a run would do, take and cost, told before anything is started (`--plan`)."""

from __future__ import annotations

from spark_jobs.planning.plan import Step, plan_text

__all__ = ["Step", "plan_text"]
