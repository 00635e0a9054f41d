"""Sends a file to a recipient: python send_file.py URL RECIPIENT FILE

The payload is sent as it is. A messenger encrypts it first.
"""

from __future__ import annotations

import sys

from relay_client import Client, RelayError


def main() -> int:
    """Returns the exit code."""
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    url, recipient, path = sys.argv[1:]
    with Client(url) as client, open(path, "rb") as file:
        try:
            result = client.push_file(recipient, file, kind="attachment")
        except RelayError as error:
            print(f"not sent: {error}", file=sys.stderr)
            return 1
    print(f"sent as {result.message_id}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
