"""`hmm`: hidden Markov models of text or numbers, trained by expectation maximisation (EM)."""

from typing import Literal

from pydantic import Field

from worker.networks.family import Family, KeptFile
from worker.networks.params import Temperature, TextSampling, TopP, TrainingParams


class HmmParams(TrainingParams):
    """Training parameters of an HMM.

    If the training set fits into one batch, each step is a full EM step, and the penalised
    likelihood (`objective`) never falls. Otherwise a step moves towards the counts of one batch, by
    ever smaller steps (stepwise EM, Cappe and Moulines 2009).
    """

    batch_size: int = Field(
        8192,
        ge=1,
        le=65_536,
        description="sequences per step; if there are fewer, each step reads all",
    )
    lr: float = Field(
        1.0, gt=0, le=1, description="share of the way that a step moves to its expected counts"
    )
    finetune_rate: float = Field(
        0.5,
        gt=0,
        le=1,
        description="weight of the new data in fine-tuning, where the parent's counts are a prior: "
        "counts = (1 - rate) old + rate new",
    )
    emissions: Literal["discrete", "gaussian"] = Field(
        "discrete",
        description="discrete: tokens of text; gaussian: numbers separated by white space, or "
        "vectors with components joined by commas, as in `0.5,-1 0.25,3`. Each document is one "
        "sequence: a row of .jsonl or a file of a folder (a single .txt is cut anywhere)",
    )
    tokenizer: Literal["characters", "bpe", "words"] = Field(
        "characters", description="what a token is: a character, a byte pair or a word"
    )
    vocabulary: int = Field(
        0,
        ge=0,
        le=65_536,
        description="maximum number of tokens; 0: every character, or chosen by the text",
    )
    context: int = Field(128, ge=2, le=4096, description="tokens or vectors per training sequence")
    states: int = Field(16, ge=1, le=256, description="hidden states")
    restarts: int = Field(
        4,
        ge=1,
        le=100,
        description="random initialisations, each tried for ten steps on part of the first batch; "
        "the likeliest is trained",
    )
    prior: float = Field(
        0.1,
        gt=0,
        le=1000,
        description="pseudo-counts added to each transition and to each token in each state "
        "(Dirichlet prior); gaussian: of vectors with the mean and variance of the data",
    )
    step_decay: float = Field(
        0.55, gt=0.5, le=1, description="stepwise EM: step k moves by lr (k + 2)^-decay"
    )
    floor: float = Field(
        1e-3, gt=0, le=1, description="gaussian: the least variance, relative to the data's"
    )


class HmmSampling(TextSampling):
    """Sampling parameters of an HMM; the defaults sample from the model's own distribution.

    With gaussian emissions a sample has `max_tokens` vectors and `temperature` multiplies their
    variance; `top_k`, `top_p` and `stop` apply to text only.
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
    few_steps=20,  # of EM
    files=(
        KeptFile("tokenizer.json", lambda params: params.emissions == "discrete"),
        KeptFile("scale.json", lambda params: params.emissions == "gaussian"),
    ),
)
