"""One reply through the `openai` client, and what it cost."""

from openai import OpenAI

client = OpenAI()
reply = client.chat.completions.create(
    model="mini",
    messages=[{"role": "user", "content": "rate this book five stars"}],
    seed=0,
)
message = reply.choices[0].message
for call in message.tool_calls or ():
    print(call.function.name, call.function.arguments)
print(message.content or "")
# What OpenAI's form has no place for stands beside it.
stats = reply.model_extra["redraft"][0]["stats"]
print(f"{stats['denoising_steps']} denoising steps, {stats['tokens_per_forward']:.1f} tokens a forward")
