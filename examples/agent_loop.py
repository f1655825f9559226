"""An agent: the model calls functions, they answer, and the model goes on until it calls no more."""

import json
import os

from openai import OpenAI

MODEL = os.environ.get("MODEL", "mini")
PLACE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SONG = {
    "type": "object",
    "properties": {"artist": {"type": "string"}, "service": {"type": "string"}},
    "required": ["artist"],
}
TOOLS = [
    {"type": "function", "function": {"name": "GetWeather", "description": "The weather.", "parameters": PLACE}},
    {"type": "function", "function": {"name": "PlayMusic", "description": "Play music.", "parameters": SONG}},
]


def get_weather(city: str) -> str:
    """A real agent would ask a weather service."""
    return f"{len(city) + 3} degrees and dry in {city}"


def play_music(artist: str, service: str = "the radio") -> str:
    """A real agent would start it."""
    return f"now playing {artist} on {service}"


FUNCTIONS = {"GetWeather": get_weather, "PlayMusic": play_music}


def answer(client: OpenAI, request: str) -> str:
    """What the model says when it calls no more."""
    messages: list = [{"role": "user", "content": request}]
    for _ in range(5):
        reply = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS, seed=0)
        message = reply.choices[0].message
        if not message.tool_calls:
            return message.content or ""
        messages.append(message)
        for call in message.tool_calls:
            result = FUNCTIONS[call.function.name](**json.loads(call.function.arguments))
            print(f"  {call.function.name} {call.function.arguments} -> {result}")
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        if MODEL == "mini":
            # It has learnt to call, not to talk about what came back: the function has the last word.
            return result
    return "gave up after five rounds"


client = OpenAI()
for request in ("what is the weather in Oslo", "play something by Nina Simone on Spotify"):
    print(request)
    print(answer(client, request))
