"""What Schemathesis gets wrong about this API, and the longest bodies."""

import os

import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData

# Whether every body is as long as it may be: of characters beyond the first 65,536, which are two UTF-16 units and four
# bytes of UTF-8.
FULL_LENGTH = "TASKPACT_FULL_LENGTH" in os.environ
LONGEST = {"title": "\U0001fab4" * 200, "description": "\U0001d11e" * 1000}


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes each body as long as it may be, if that is asked for."""
    if FULL_LENGTH and isinstance(case.body, dict):
        case.body.update({field: text for field, text in LONGEST.items() if "title" in case.body or field in case.body})


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Valid data has to be accepted, says Schemathesis. These refusals are not about the data being invalid:"""
    if isinstance(failure, RejectedPositiveData):
        headers = case.headers or {}
        # a condition that does not hold is what If-Match is for, and Schemathesis makes tags up;
        if response.status_code == 412 and "If-Match" in headers:
            return False
        # nobody knows what has changed since a place in the feed that was made up;
        if response.status_code == 410 and "since" in (case.query or {}):
            return False
        # a key of one character, say, is soon made up twice, for different requests.
        if response.status_code == 422 and "Idempotency-Key" in headers:
            return response.json()["type"] != "/problems/idempotency-key-reused"
    return True


if FULL_LENGTH:

    @schemathesis.check
    def nothing_is_cut_off(ctx, response, case):
        """The task that is given back has what was sent, to the last character."""
        if response.status_code in (200, 201) and isinstance(case.body, dict):
            task = response.json()
            for field, text in LONGEST.items():
                assert field not in case.body or task[field] == text, f"{field} is not what was sent"
