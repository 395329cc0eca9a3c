"""First-party rewards: what can score a response out of the box."""

from __future__ import annotations

from mmalign import RewardSpec, hookimpl


@hookimpl
def register_rewards() -> list[RewardSpec]:
    """Announces the rewards."""
    return [
        RewardSpec(
            name="python",
            summary="Any Python function, by dotted path or file.",
            target="mmalign_rewards.python_function:PythonFunction",
            config="mmalign_rewards.python_function:PythonFunctionConfig",
        ),
        RewardSpec(
            name="http",
            summary="Scores of a reward server of your own.",
            target="mmalign_rewards.http:Http",
            config="mmalign_rewards.http:HttpConfig",
        ),
        RewardSpec(
            name="judge",
            summary="Scores that a chat model writes, behind any OpenAI-compatible endpoint.",
            target="mmalign_rewards.judge:Judge",
            config="mmalign_rewards.judge:JudgeConfig",
            paper="Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena (arXiv:2306.05685)",
        ),
        RewardSpec(
            name="classifier",
            summary="Logits or probabilities of a transformers sequence classifier or reward model.",
            target="mmalign_rewards.classifier:Classifier",
            config="mmalign_rewards.classifier:ClassifierConfig",
            requires=("transformers",),
            extra="rewards",
        ),
        RewardSpec(
            name="vader",
            summary="VADER compound sentiment of the response, in [-1, 1].",
            target="mmalign_rewards.vader:Vader",
            paper="VADER: A Parsimonious Rule-Based Model for Sentiment Analysis of Social Media Text (ICWSM 2014)",
            requires=("vaderSentiment",),
            extra="rewards",
        ),
        RewardSpec(
            name="relevance",
            summary="Cosine of the sentence embeddings of prompt and response, in [-1, 1].",
            target="mmalign_rewards.relevance:Relevance",
            config="mmalign_rewards.relevance:RelevanceConfig",
            paper="Sentence-BERT (arXiv:1908.10084)",
            requires=("transformers",),
            extra="rewards",
        ),
        RewardSpec(
            name="length",
            summary="Linear penalty on the distance of the response's length from a target or above a maximum.",
            target="mmalign_rewards.length:Length",
            config="mmalign_rewards.length:LengthConfig",
        ),
    ]
