"""Reads a calendar from standard input, strictly, and prints its events as JSON."""

import json
import sys

from icalendar import Calendar

text = sys.stdin.buffer.read()
for line in text.split(b"\r\n"):
    assert len(line) <= 75, line
    assert b"\n" not in line and b"\r" not in line, line
calendar = Calendar.from_ical(text)
assert not calendar.errors, calendar.errors
assert calendar["VERSION"] == "2.0" and calendar["PRODID"]
events = []
for event in calendar.walk("VEVENT"):
    assert not event.errors, event.errors
    for name in ("UID", "DTSTAMP", "DTSTART"):
        assert name in event, name
    events.append(
        {
            "uid": str(event["UID"]),
            "sequence": int(event["SEQUENCE"]),
            "stamp": event["DTSTAMP"].dt.isoformat(),
            "start": event["DTSTART"].dt.isoformat(),
            "summary": str(event["SUMMARY"]),
            "description": str(event["DESCRIPTION"]),
            "url": str(event.get("URL", "")),
            "alarms": [
                alarm["TRIGGER"].dt.total_seconds()
                for alarm in event.walk("VALARM")
                if alarm["ACTION"] == "DISPLAY" and alarm["DESCRIPTION"]
            ],
        }
    )
print(json.dumps(events))
