"""An agent: the model calls a function, the function answers, and the model goes on until it calls no more."""

import json

from openai import OpenAI

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "GetWeather",
            "description": "The weather at a place.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "timeRange": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


def get_weather(city: str, timeRange: str = "now") -> str:
    """A real agent would ask a weather service."""
    return f"{len(city) + 3} degrees and dry in {city}, {timeRange}"


client = OpenAI()
messages: list = [{"role": "user", "content": "what is the weather in Oslo tomorrow"}]
for _ in range(3):
    reply = client.chat.completions.create(model="mini", messages=messages, tools=TOOLS, seed=0)
    message = reply.choices[0].message
    messages.append(message)
    if not message.tool_calls:
        break
    for call in message.tool_calls:
        answer = get_weather(**json.loads(call.function.arguments))
        print(call.function.name, call.function.arguments, "->", answer)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": answer})
# mini has learnt to call, not to talk about what came back: a larger model has more to say here.
print(reply.choices[0].message.content)
