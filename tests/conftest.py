"""Settings of every test: a slow or busy machine is no failure; what is false is."""

import os

# Tests run side by side: a second thread in each would wait for a core by spinning. Servers and learners inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
