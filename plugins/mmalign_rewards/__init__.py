"""First-party rewards: what can score a response out of the box."""

from __future__ import annotations

from mmalign import RewardSpec, hookimpl

REWARDS = [
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
        name="run",
        summary="Scores of a finished run of mmalign, e.g. of a trained reward model.",
        target="mmalign_rewards.trained_run:TrainedRun",
        config="mmalign_rewards.trained_run:TrainedRunConfig",
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
    RewardSpec(
        name="clip_score",
        summary="Agreement of image and prompt: the scaled cosine of their CLIP features.",
        target="mmalign_rewards.clip_score:ClipScore",
        config="mmalign_rewards.clip_score:ClipScoreConfig",
        paper="CLIPScore: A Reference-free Evaluation Metric for Image Captioning (arXiv:2104.08718)",
        requires=("PIL",),
        extra="rewards",
    ),
    RewardSpec(
        name="clip_preference",
        summary="Preference score of image and prompt: the logit of a CLIP that was trained on preferences.",
        target="mmalign_rewards.clip_score:ClipScore",
        config="mmalign_rewards.clip_score:ClipPreferenceConfig",
        paper="Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation (arXiv:2305.01569)",
        requires=("PIL",),
        extra="rewards",
    ),
    RewardSpec(
        name="clip_head",
        summary="Aesthetic score of an image, or another linear or MLP head on its CLIP features.",
        target="mmalign_rewards.clip_head:ClipHead",
        config="mmalign_rewards.clip_head:ClipHeadConfig",
        requires=("PIL",),
        extra="rewards",
    ),
    RewardSpec(
        name="brisque",
        summary="Quality of an image without a reference: minus its BRISQUE score.",
        target="mmalign_rewards.brisque:Brisque",
        config="mmalign_rewards.brisque:BrisqueConfig",
        paper="No-Reference Image Quality Assessment in the Spatial Domain (IEEE TIP 2012)",
        requires=("PIL", "scipy"),
        extra="rewards",
    ),
    RewardSpec(
        name="image_classifier",
        summary="A classifier's confidence that an image shows the class that was asked for.",
        target="mmalign_rewards.image_classifier:ImageClassifier",
        config="mmalign_rewards.image_classifier:ImageClassifierConfig",
        requires=("PIL",),
        extra="rewards",
    ),
    RewardSpec(
        name="compressibility",
        summary="Minus the size of an image as a JPEG file, in kB.",
        target="mmalign_rewards.jpeg_size:Compressibility",
        config="mmalign_rewards.jpeg_size:JpegSizeConfig",
        paper="Training Diffusion Models with Reinforcement Learning (arXiv:2305.13301)",
        requires=("PIL",),
        extra="rewards",
    ),
    RewardSpec(
        name="incompressibility",
        summary="The size of an image as a JPEG file, in kB.",
        target="mmalign_rewards.jpeg_size:Incompressibility",
        config="mmalign_rewards.jpeg_size:JpegSizeConfig",
        paper="Training Diffusion Models with Reinforcement Learning (arXiv:2305.13301)",
        requires=("PIL",),
        extra="rewards",
    ),
]


@hookimpl
def register_rewards() -> list[RewardSpec]:
    """Announces the rewards."""
    return REWARDS
