"""A function called through a framework: Pydantic AI finds the server by OPENAI_BASE_URL.

The function is the agent's output, so that its answer ends the run. mini has learnt to call, not to talk about what
came back; with a larger model `@agent.tool_plain` lets it go on from there.
"""

from pydantic_ai import Agent, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel


def get_weather(city: str) -> str:
    """The weather at a place."""
    return f"{len(city) + 3} degrees and dry in {city}"


agent = Agent(OpenAIChatModel("mini"), output_type=ToolOutput(get_weather, name="GetWeather"))
print(agent.run_sync("what is the weather in Oslo").output)
