"""What carries out jobs: `warden` claims and guards them, `child` is the process that a job runs in."""
