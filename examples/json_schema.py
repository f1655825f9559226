"""A reply that is valid under a schema, whatever the model: the canvas is drawn from the texts that are."""

from openai import OpenAI
from pydantic import BaseModel


class Song(BaseModel):
    """What the reply is read into."""

    title: str
    year: int
    genres: list[str]


client = OpenAI()
reply = client.chat.completions.parse(
    model="mini",
    messages=[{"role": "user", "content": "describe a song"}],
    response_format=Song,
    seed=0,
)
print(reply.choices[0].message.parsed)
