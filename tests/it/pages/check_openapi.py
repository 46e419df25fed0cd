"""Validates an OpenAPI document, and real answers against it.

Arguments: the exporter's base URL, then paths with queries. Prints a line for each answer. Ends
badly where an answer does not fit the document, or where the validator would take one that cannot.
"""

import json
import sys
from urllib.error import HTTPError
from urllib.parse import parse_qsl, urlsplit
from urllib.request import urlopen

from openapi_core import OpenAPI
from openapi_core.exceptions import OpenAPIError
from openapi_core.testing import MockRequest, MockResponse


def get(url):
    try:
        with urlopen(url) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except HTTPError as answer:
        return answer.code, answer.headers["Content-Type"], answer.read()


def validate(api, base, path, status, content_type, body):
    parts = urlsplit(path)
    request = MockRequest(base, "get", parts.path, args=dict(parse_qsl(parts.query)))
    if status == 200:
        api.validate_request(request)
    response = MockResponse(data=body, status_code=status, content_type=content_type)
    api.validate_response(request, response)


def must_fail(what, action):
    try:
        action()
    except OpenAPIError:
        return
    sys.exit(f"the validator takes {what}")


base, *paths = sys.argv[1:]
document = json.loads(get(f"{base}/api/v1/openapi.json")[2])
# Checks the document itself too.
api = OpenAPI.from_dict(document)
api.check_spec() if hasattr(api, "check_spec") else None
for path in paths:
    status, content_type, body = get(base + path)
    validate(api, base, path, status, content_type, body)
    print(status, path)

path = "/api/v1/keys"
status, content_type, body = get(base + path)
listing = json.loads(body)
assert listing["keys"], "there is a key to spoil"
for field, value in [("state", "gone"), ("expires_at", "yesterday"), ("extra", 1), ("own", None)]:
    spoiled = json.loads(body)
    spoiled["keys"][0][field] = value
    spoiled = json.dumps(spoiled).encode()
    must_fail(f"{field}: {value}", lambda: validate(api, base, path, 200, content_type, spoiled))
del listing["generated_at"]
listing = json.dumps(listing).encode()
must_fail("no time", lambda: validate(api, base, path, 200, content_type, listing))
# Every field of an answer is documented, and every documented one is there.
documented = document["components"]["schemas"]["Key"]
assert set(documented["required"]) == set(documented["properties"]) == set(json.loads(body)["keys"][0])
