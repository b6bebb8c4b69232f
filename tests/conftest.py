"""Property tests bear slow machines, and fresh clones, where Hypothesis first makes its tables of letters."""

from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
