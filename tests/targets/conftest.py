from tests.support import database, survey_root  # noqa: F401
