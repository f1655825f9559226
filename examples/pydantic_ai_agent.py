"""The agent loop through a framework: Pydantic AI finds the server by OPENAI_BASE_URL."""

from pydantic_ai import Agent, UsageLimitExceeded
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.usage import UsageLimits

agent = Agent(OpenAIChatModel("mini"))


@agent.tool_plain
def GetWeather(city: str) -> str:
    """The weather at a place."""
    print("GetWeather", city)
    return f"{len(city) + 3} degrees and dry"


try:
    result = agent.run_sync("what is the weather in Oslo", usage_limits=UsageLimits(request_limit=3))
    print(result.output)
except UsageLimitExceeded:
    # mini has learnt to call, not to talk about results; a larger model ends here by itself.
    print("the model went on calling")
