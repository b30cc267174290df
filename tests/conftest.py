"""For all tests: how Hypothesis searches.

A busy machine lets anybody wait for a second now and then. That says nothing about the code, so no example has a
deadline. With ``CI`` set, or with ``--hypothesis-profile=repeatable``, the same examples are taken each time, as a
release is measured by; any other run searches on where none has been.
"""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("searching", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("repeatable", settings.get_profile("searching"), derandomize=True, database=None)
settings.load_profile("repeatable" if os.environ.get("CI") else "searching")
