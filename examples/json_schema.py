"""A call whose arguments are valid under a schema, read into a class: the canvas is drawn from the texts that are.

`response_format=Song` holds a whole reply to a class in the same way; mini, which knows calls alone, fills one with
nonsense, and a larger model with sense.
"""

from typing import Literal

from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel


class PlayMusic(BaseModel):
    """Play music."""

    artist: str
    service: Literal["Spotify", "Deezer", "YouTube"]


client = OpenAI()
reply = client.chat.completions.parse(
    model="mini",
    messages=[{"role": "user", "content": "play something by Nina Simone on Spotify"}],
    tools=[pydantic_function_tool(PlayMusic)],
    tool_choice="required",
    seed=0,
)
[call] = reply.choices[0].message.tool_calls or []
print(repr(call.function.parsed_arguments))
