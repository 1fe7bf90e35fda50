"""What every unit test runs under.

Importing `helpers` from a test checks each function's tensor shapes and types against its
signature. Nothing a test makes lands in the real results.
"""

import pytest
from beartype import BeartypeConf, beartype
from hypothesis import settings
from jaxtyping import install_import_hook

# an int is welcome where a float is asked for, as Python's own typing rules have it
typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
install_import_hook("helpers", "conftest.typechecked")

# The same examples everywhere, so that what passes here passes on a build server; and no deadline,
# because a busy machine is not a bug.
settings.register_profile("course", derandomize=True, deadline=None)
settings.load_profile("course")


@pytest.fixture(scope="session", autouse=True)
def _results_elsewhere(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_RESULTS", str(tmp_path_factory.mktemp("results")))
        yield
