"""Names that travel over a broker."""

RUN_JOB = "millrace.run_job"
"""The one type of message about jobs: run_job(number)."""


def wake_queue(tier: str) -> str:
    """Where wake-ups of a tier go. Its length is the number of jobs that wait."""
    return f"millrace.{tier}"
