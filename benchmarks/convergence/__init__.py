"""Study of convergence over objectives, students, noise laws and schedules: ``python -m benchmarks.convergence``."""
