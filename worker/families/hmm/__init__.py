"""`hmm`: hidden Markov models of text or of numbers, learnt by expectation maximisation."""

from typing import Literal

from pydantic import Field

from worker.networks.family import Family, KeptFile
from worker.networks.params import Temperature, TextSampling, TopP, TrainingParams


class HmmParams(TrainingParams):
    """The model and its training.

    Where the training set fits into one batch, a step is a whole step of expectation maximisation,
    and the penalised likelihood (`objective`) never falls. Else a step reads one batch, and moves
    by less and less towards its counts (stepwise EM, Cappe and Moulines 2009).
    """

    batch_size: int = Field(
        8192,
        ge=1,
        le=65_536,
        description="sequences a step; where there are fewer, a step reads all of them",
    )
    lr: float = Field(1.0, gt=0, le=1, description="how far a step goes to the counts it has found")
    finetune_rate: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of the new data when going on from a version: its counts are a prior, "
        "counts = (1 - rate) old + rate new",
    )
    emissions: Literal["discrete", "gaussian"] = Field(
        "discrete",
        description="tokens of text; or numbers with white space between, a vector's components "
        "joined by commas, as in `0.5,-1 0.25,3`, in documents that are rows of .jsonl or files of "
        "a folder (a lone .txt is cut anywhere); samples are such lines",
    )
    tokenizer: Literal["characters", "bpe", "words"] = Field(
        "characters", description="what a token is: one character, byte pairs of them, or a word"
    )
    vocabulary: int = Field(
        0, ge=0, le=65_536, description="the most tokens; 0: every character, or chosen by the text"
    )
    context: int = Field(
        128, ge=2, le=4096, description="steps of a sequence that the training text is cut into"
    )
    states: int = Field(16, ge=1, le=256, description="hidden states")
    restarts: int = Field(
        4,
        ge=1,
        le=100,
        description="random beginnings, of which, each tried for ten steps on a part of the first "
        "batch, the likeliest goes on",
    )
    prior: float = Field(
        0.1,
        gt=0,
        le=1000,
        description="pseudo-counts added to each transition and each token's count in a state "
        "(Dirichlet prior); of gaussian, of numbers as they are spread in the whole data",
    )
    step_decay: float = Field(
        0.55, gt=0.5, le=1, description="of stepwise EM: step k moves by lr (k + 2)^-decay"
    )
    floor: float = Field(
        1e-3, gt=0, le=1, description="of gaussian: the least variance, a share of the data's own"
    )


class HmmSampling(TextSampling):
    """How text is chosen; by default exactly as the model has it.

    Of gaussian emissions a sample has `max_tokens` vectors, and `temperature` multiplies their
    variance; `top_k`, `top_p` and `stop` are for text.
    """

    temperature: Temperature = 1.0
    top_p: TopP = 1.0


FAMILY = Family(
    name="hmm",
    title="hidden Markov model of text, notes or numbers, by expectation maximisation",
    media="text",
    params=HmmParams,
    sampling=HmmSampling,
    takes_labels=False,
    takes_prompts=True,
    papers=(
        "Baum et al. 1970, A maximization technique in the statistical analysis of probabilistic "
        "functions of Markov chains",
        "Rabiner 1989, A tutorial on hidden Markov models (equations 90 to 111)",
        "Cappe, Moulines 2009, Online expectation-maximization algorithm for latent data models, "
        "arXiv:0712.4273",
    ),
    default_seconds=60,
    files=(
        KeptFile("tokenizer.json", lambda params: params.emissions == "discrete"),
        KeptFile("scale.json", lambda params: params.emissions == "gaussian"),
    ),
)
