"""Evaluations to decide about: made of drawn numbers, so that the truth is known."""

import hashlib
import io

import numpy as np

from db import datasets, evaluations, jobs, models
from db.evaluations import NewEvaluation
from worker.gate.items import Items
from worker.gate.policy import Policy
from worker.metrics.catalogue import METRICS
from worker.metrics.kernel import squared_mmd

WIDTH = 6
REAL = np.random.default_rng(99).normal(size=(400, WIDTH)).astype(np.float32)


def images(seed, *, count=400, shift=0.0, numbers=None, protocol="p"):
    """Made features whose mean is `shift` away from the real ones'."""
    made = np.random.default_rng(seed).normal(shift, size=(count, WIDTH)).astype(np.float32)
    arrays = {"made_features": made, "real_features": REAL[:count]}
    found = {"kid": number("kid", squared_mmd(REAL[:count], made), n=count)}
    return Items(arrays, found | (numbers or {}), protocol)


def texts(seed, *, count=300, better_by=0.0, protocol="p", tokenizer=1):
    """Documents with the same lengths and difficulty for every seed, and noise of a version."""
    fixed = np.random.default_rng(5)
    tokens = fixed.integers(20, 200, count)
    hardness = fixed.normal(2.0, 0.4, count)
    own = np.random.default_rng(seed).normal(-better_by, 0.05, count)
    nll = tokens * (hardness + own)
    loss = float(nll.sum() / tokens.sum())
    numbers = {
        "loss": number("loss", loss, n=count),
        "perplexity": number("perplexity", float(np.exp(loss)), n=count),
    }
    digest = np.full(32, tokenizer, np.uint8)
    return Items({"nll": nll, "tokens": tokens, "tokenizer_sha256": digest}, numbers, protocol)


def classes(seed, *, count=1000, right=0.8, protocol="p"):
    """Asked-for labels in equal shares, of which the judge sees a share as asked for."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    seen = np.where(random.random(count) < right, labels, (labels + 1) % 10)
    agreement = number("label_agreement", float((seen == labels).mean()), n=count)
    arrays = {"made_labels": labels, "made_probabilities": np.eye(10)[seen]}
    return Items(arrays, {"label_agreement": agreement}, protocol)


def number(metric, value, *, n=400, real=None):
    """A number as an evaluation records it, without its interval."""
    return {"value": value, "better": METRICS[metric].better, "real": real, "n": n}


def policy(metric, *, resamples=200, guard=(), training_sd=None, **primary):
    return Policy.model_validate(
        {
            "primary": {"metric": metric, **primary},
            "guard": list(guard),
            "noise": {"training_sd": training_sd},
            "resamples": resamples,
        }
    )


def add_version(services, name="digits", family="vae"):
    """Add a version, whose weights nobody reads; returns its number."""
    with services.database.write() as session:
        rest = {"params": {}, "files": {}, "weights_sha256": "a" * 64, "metrics": {}}
        return models.add_version(session, name=name, family=family, **rest).number


def add_dataset(services, name="pets", kind="image"):
    """Add a dataset version, whose content nobody reads; returns its reference."""
    with services.database.write() as session:
        digest = hashlib.sha256(f"{name}{kind}".encode()).hexdigest()
        key = f"datasets/blobs/{digest}"
        found = datasets.add_version(
            session, name=name, kind=kind, manifest_key=key, manifest_sha256=digest, summary={}
        )
        return f"{name}:{found.number}"


def add_evaluation(services, reference, items, *, dataset="pets", judge=None):
    """Record an evaluation of a version, as an evaluate job would."""
    file = io.BytesIO()
    np.savez(file, **items.arrays)
    blob = services.store.put_bytes("jobs/blobs", file.getvalue())
    with services.database.write() as session:
        version = models.resolve(session, reference)[1]
        data = datasets.resolve(session, dataset)[1]
        job = jobs.add(
            session, spec={}, spec_hash="0" * 64, kind="evaluate", model="m", ranges=[(0, 1)]
        )
        job.status = jobs.shards_of(session, job.id)[0].status = "succeeded"
        evaluations.add(
            session,
            NewEvaluation(
                version_id=version.id,
                dataset_version_id=data.id,
                job_id=job.id,
                protocol={"name": items.protocol} | ({"judge": judge} if judge else {}),
                protocol_sha256=hashlib.sha256(items.protocol.encode()).hexdigest(),
                numbers=dict(items.numbers),
                items_key=blob.key,
                items_sha256=blob.sha256,
            ),
        )
    return blob.key
