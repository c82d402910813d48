"""Many runs: the published figures and tables, and what the job scripts run for them."""
