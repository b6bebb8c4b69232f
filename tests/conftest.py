"""Property tests bear slow machines, and fresh clones, where Hypothesis first makes its tables of letters.

In continuous integration they try the same cases every time; elsewhere they go looking for new ones.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("patient")
