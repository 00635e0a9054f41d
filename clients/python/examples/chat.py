"""A chat in two terminals: python chat.py URL [FRIEND]

The first one prints its recipient; start the second with it. The second sends its own recipient in
its first line, so the first can answer. Each queue can be read only with the secret that the
program makes at its start. The texts are not encrypted: do that in a real messenger.
"""

from __future__ import annotations

import asyncio
import json
import sys

from relay_client import AsyncClient, Credentials, RelayError, generate_secret, recipient_of_secret


def printable(text: str) -> str:
    """The text with everything escaped that could command the terminal or forge a line."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class Chat:
    """One side of the chat."""

    def __init__(self, client: AsyncClient, own: str, friend: str | None) -> None:
        self._client = client
        self._own = own
        self._friend = friend

    async def listen(self) -> None:
        """Prints what comes."""
        async for message in self._client.deliveries(self._own):
            line = json.loads(message.payload)
            self._friend = self._friend or line["from"]
            print(f"< {printable(str(line['text']))}")
            message.ack()

    async def talk(self) -> None:
        """Sends what is typed."""
        while text := await asyncio.to_thread(sys.stdin.readline):
            if self._friend is None:
                print("nobody is there yet")
                continue
            line = {"from": self._own, "text": text.rstrip("\n")}
            try:
                await self._client.push(self._friend, json.dumps(line).encode(), ttl=3600)
            except RelayError as error:
                print(f"not sent: {error}")


async def main(url: str, friend: str | None) -> None:
    """Runs until the end of the input."""
    secret = generate_secret()
    own = recipient_of_secret(secret)
    print(f"I am {own}")
    async with AsyncClient(url, credentials=Credentials.secret(secret)) as client:
        chat = Chat(client, own, friend)
        listener = asyncio.create_task(chat.listen())
        await chat.talk()
        # Closing the client ends the deliveries.
        await client.close()
        await listener


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else None))
