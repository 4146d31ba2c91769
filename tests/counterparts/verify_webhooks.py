"""Verifies webhooks with the official library for Python, and parses events with the SDK of CloudEvents.

Reads a line of JSON a request, {"headers", "body", "secret", "event"}, and prints a line: {"error"} or, of an event, its
attributes and data, of anything else what was verified.
"""

import json
import sys

from cloudevents.core.bindings.http import HTTPMessage, from_structured
from cloudevents.core.formats.json import JSONFormat
from standardwebhooks import Webhook


def verified(request):
    body = Webhook(request["secret"]).verify(request["body"], request["headers"])
    if not request["event"]:
        return {"verified": body}
    message = HTTPMessage(headers=request["headers"], body=request["body"].encode())
    event = from_structured(message, JSONFormat())
    attributes = event.get_attributes()
    attributes["time"] = attributes["time"].isoformat()
    return {"event": {**attributes, "data": event.get_data()}}


for line in sys.stdin:
    try:
        answer = verified(json.loads(line))
    except Exception as error:  # Whatever it is, it is the answer.
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
