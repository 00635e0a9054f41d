"""A bot that sends every message back: python echo_bot.py URL NAME

A message is JSON: {"from": RECIPIENT, "text": TEXT}, as chat.py sends it. The bot acks a message
only after its answer is stored, so nothing is lost if the bot dies in between.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys

from relay_client import AsyncClient, AsyncMessage, RelayError


async def answer(client: AsyncClient, name: str, message: AsyncMessage) -> None:
    """Sends one message back. What cannot be answered is dropped."""
    try:
        line = json.loads(message.payload)
        sender, text = str(line["from"]), str(line["text"])
    except (ValueError, TypeError, KeyError):
        logging.warning("dropped a message that is no JSON with from and text")
        message.ack()
        return
    echo = json.dumps({"from": name, "text": text})
    try:
        await client.push(sender, echo.encode())
    except RelayError as error:
        logging.warning("dropped an answer: %s", error)
    message.ack()


async def main(url: str, name: str) -> None:
    """Runs until it is interrupted."""
    async with AsyncClient(url) as client:
        async for message in client.deliveries(name, transport="stream"):
            await answer(client, name, message)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2]))
    except KeyboardInterrupt:
        pass
