"""A stream with drafts: the canvas as it settles, one line a step; what is still drawn anew stands in brackets."""

from openai import OpenAI

client = OpenAI()
stream = client.chat.completions.create(
    model="mini",
    messages=[{"role": "user", "content": "add Nina Simone to my Sunday morning playlist"}],
    seed=0,
    stream=True,
    extra_body={"diffusion": {"drafts": True}},
)
texts: list[str] = []
for chunk in stream:
    extras = chunk.model_extra.get("redraft") or {}
    if frame := extras.get("draft"):
        # A frame carries only what has changed since the one before.
        texts = (texts + [""] * frame["length"])[: frame["length"]]
        for place, text in frame["set"]:
            texts[place] = text
        bits = "".join(f"{int(digit, 16):04b}" for digit in frame["accepted"])
        line = "".join(text if bit == "1" else f"[{text}]" for text, bit in zip(texts, bits, strict=False))
        print(f"{frame['step']:3d} {line.split('<eos>')[0]}")
    if stats := extras.get("stats"):
        print(f"{stats['denoising_steps']} steps, {stats['total_s']:.2f} s")
