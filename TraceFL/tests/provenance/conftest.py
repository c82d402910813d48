"""Small models of the four families, and clients near them."""

import pytest

from tests.helpers.models import MODELS


@pytest.fixture(params=list(MODELS))
def family(request):
    return request.param
