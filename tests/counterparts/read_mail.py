"""Reads a message as a mail program does, with Python's package email, and prints what it found as JSON."""

import email
import email.policy
import json
import sys

with open(sys.argv[1], "rb") as file:
    message = email.message_from_binary_file(file, policy=email.policy.default)


def told(part):
    return {
        "type": part.get_content_type(),
        "charset": part.get_content_charset(),
        "encoding": part["Content-Transfer-Encoding"],
        "text": part.get_content(),
        "defects": [str(defect) for defect in part.defects],
    }


names = [name.lower() for name in message.keys()]
print(
    json.dumps(
        {
            "names": names,
            "headers": {name: str(message[name]) for name in names},
            "header_defects": [str(defect) for name in names for defect in message[name].defects],
            "from": [[address.display_name, address.addr_spec] for address in message["From"].addresses],
            "to": [[address.display_name, address.addr_spec] for address in message["To"].addresses],
            "date": message["Date"].datetime.isoformat(),
            "type": message.get_content_type(),
            "parts": [told(part) for part in message.iter_parts()],
            "defects": [str(defect) for defect in message.defects],
        }
    )
)
