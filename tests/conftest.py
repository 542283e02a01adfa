"""What holds for all tests: how long property tests try. `make fuzz` takes the profile `fuzz`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No deadline: the machine is shared, and a slow example is no defect. Failing examples are printed to be repeated.
settings.register_profile("test", deadline=None, max_examples=100, print_blob=True)
settings.register_profile(
    "fuzz", deadline=None, max_examples=20_000, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("test")
