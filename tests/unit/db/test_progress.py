"""The progress of a job."""

from db import progress


def test_a_generate_job_counts_committed_and_running_samples():
    job = progress.initial("generate", [(0, 4), (4, 10)])
    job = progress.after_report(job, 0, {"done": 2}, elapsed_s=4)
    job = progress.after_report(job, 1, {"done": 3, "note": "halved"}, elapsed_s=10)
    assert (job["done"], job["eta_s"], job["note"]) == (5, 10.0, "halved")
    job = progress.after_commit(job, 0, 4)
    assert (job["done"], job["running"]) == (7, {"1": 3})
    job = progress.after_release(job, 1)
    assert (job["done"], job["total"]) == (4, 10)


def test_without_samples_no_time_left_is_estimated():
    job = progress.after_report(progress.initial("generate", [(0, 4)]), 0, {"done": 0}, elapsed_s=4)
    assert "eta_s" not in job


def test_a_training_job_keeps_the_last_report():
    job = progress.initial("train", [(0, 1)])
    assert job == {}
    job = progress.after_report(job, 0, {"done": 5, "total": 9}, elapsed_s=1)
    assert job == {"done": 5, "total": 9}
    assert progress.after_commit(job, 0, 1) == progress.after_release(job, 0) == job
