from tests.support import database, own_root, survey_root  # noqa: F401
