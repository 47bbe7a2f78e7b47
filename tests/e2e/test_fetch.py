"""Projects of users who want samples in their own tools, and to know where a file came from."""

import io
import json

import pytest
from PIL import Image

from tests.bench.machine import write_idx
from tests.families.causal import CHAT, write_base
from tests.results.classifier import read_idx

pytestmark = [pytest.mark.xdist_group("e2e"), pytest.mark.slow]

GAN = [f"--set={pair}" for pair in ("channels=8", "latent=16", "batch_size=64")]
WORDS = ("red", "blue", "green", "old", "new", "small")
THINGS = ("mill", "stream", "wheel", "field", "stone")


@pytest.fixture
def digits(machine, tmp_path, shared_data):
    """A machine that runs, with a GAN of MNIST's digits, trained for a moment."""
    for name in ("images-idx3", "labels-idx1"):
        whole = read_idx(shared_data / "mnist" / f"train-{name}-ubyte.gz")
        (tmp_path / "mnist").mkdir(exist_ok=True)
        write_idx(tmp_path / "mnist" / f"train-{name}-ubyte", whole[:3000])
    machine.do("up", "--detach")
    machine.do("dataset", "add", "mnist", tmp_path / "mnist", "--size", "16")
    machine.do(
        *("enqueue", "train", "gan", "--dataset", "mnist", "--name", "digits"),
        *(*GAN, "--max-steps", "60", "--wait"),
    )
    return machine


@pytest.mark.timeout(600)
def test_five_thousand_digits_of_one_class_as_parquet_into_pandas(digits, tmp_path):
    import datasets
    import pandas
    import polars

    words = ("enqueue", "generate", "digits", "--count", "5000", "--label", "7", "--seed", "1")
    job = digits.do(*words, "--wait")
    out = tmp_path / "out"
    done = json.loads(
        digits.do("artifact", "download", job, "-o", out, "--as", "parquet", "--json")
    )
    assert (done["samples"], done["expected"], done["partial"]) == (5000, 5000, False)

    file = out / "samples.parquet"
    table = pandas.read_parquet(file)
    assert list(table["index"]) == list(range(5000))
    assert set(table["label"]) == {"7"}
    assert set(table["job"]) == {job}
    with Image.open(io.BytesIO(table["image"][4999]["bytes"])) as picture:
        assert picture.size == (16, 16)
    assert polars.read_parquet(file).shape == table.shape
    cache = str(tmp_path / "cache")
    rows = datasets.load_dataset("parquet", data_files=str(file), split="train", cache_dir=cache)
    assert (len(rows), rows[17]["image"].size) == (5000, (16, 16))

    folder = tmp_path / "folder"
    digits.do("artifact", "download", job, "-o", folder, "--as", "imagefolder", "--sample", "0-99")
    rows = datasets.load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=cache
    )
    assert (len(rows), set(rows["label"])) == (100, {"7"})
    [row] = json.loads(digits.do("artifact", "which", file, "--json"))
    assert (row["job"], row["samples"], row["intact"]) == (job, "0-4999", True)


@pytest.mark.timeout(600)
def test_which_job_made_this_file(digits, tmp_path):
    words = ("enqueue", "generate", "digits", "--count", "300")
    jobs = [digits.do(*words, "--seed", str(seed), "--wait") for seed in (1, 2)]
    for job in jobs:
        digits.do("artifact", "download", job, "-o", tmp_path / job)
    files = [tmp_path / job / f"{n:09d}.png" for job in jobs for n in (3, 250)]
    with Image.open(files[3]) as picture:
        picture.convert("RGB").save(tmp_path / "sent.jpg", quality=80)
        picture.resize((64, 64)).save(tmp_path / "larger.png")
    (tmp_path / "renamed.png").write_bytes(files[0].read_bytes())
    others = [tmp_path / name for name in ("renamed.png", "sent.jpg", "larger.png")]

    rows = json.loads(digits.do("artifact", "which", *files, *others, "--json"))
    told = [(row["job"], row["sample"], row["seed"], row["found_by"]) for row in rows]
    one, two = jobs
    assert told == [
        *((one, n, 1, "bytes") for n in (3, 250)),
        *((two, n, 2, "bytes") for n in (3, 250)),
        (one, 3, 1, "bytes"),
        *((two, 250, 2, "look"),) * 2,
    ]
    assert {row["model"] for row in rows} == {"digits:1"}
    Image.effect_noise((16, 16), 80).save(tmp_path / "mine.png")
    unknown = digits.genmill("artifact", "which", tmp_path / "mine.png", files[0])
    assert unknown.code == 4
    assert one in unknown.out
    assert "mine.png" in unknown.err


@pytest.mark.timeout(600)
def test_chat_fine_tuning_and_five_hundred_answers_with_their_ids(machine, tmp_path):
    chats = [
        {"messages": [{"role": "user", "content": f"Where is the {word} {thing}?"},
                      {"role": "assistant", "content": f"The {word} {thing} is here."}]}
        for word in WORDS for thing in THINGS
    ]  # fmt: skip
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    texts = [message["content"] for chat in chats for message in chat["messages"]]
    write_base(tmp_path / "base", texts, kind="llama", chat=CHAT)
    machine.do("up", "--detach")
    machine.do("model", "import", tmp_path / "base", "--name", "talker")
    machine.do("dataset", "add", "chats", tmp_path / "chats.jsonl")
    machine.do(
        *("enqueue", "finetune", "talker", "--dataset", "chats"), *("--max-steps", "20", "--wait")
    )
    ids = [f"question-{n * 7919 % 500:03d}" for n in range(500)]
    lines = [
        {"custom_id": name, "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "talker", "max_tokens": 8,
                  "messages": [{"role": "user", "content": f"Where is {name}?"}]}}
        for name in ids
    ]  # fmt: skip
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    batch = machine.do("enqueue", "batch", tmp_path / "lines.jsonl", "--wait")
    out = tmp_path / "answers"
    machine.do("artifact", "download", batch, "-o", out)
    with (out / "samples.jsonl").open(encoding="utf-8") as lines:
        answers = [json.loads(line) for line in lines]
    assert [answer["custom_id"] for answer in answers] == ids
    assert all(isinstance(answer["text"], str) for answer in answers)
    assert answers[9]["prompt"] == f"Where is {ids[9]}?"
    assert {answer["model"] for answer in answers} == {"talker:2"}
    rows = json.loads(machine.do("artifact", "which", out / "samples.jsonl", "--json"))
    assert (len(rows), {row["found_by"] for row in rows}) == (500, {"bytes"})
