import hashlib
import json
import tarfile
import wave
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from db import artifacts, batches
from worker.media.samples.index import SampleIndex
from worker.media.samples.png import read_png_record
from worker.media.samples.wav import read_wav_record
from worker.music.midi import midi_to_text


def objects_of(services, job):
    with services.database.read() as session:
        return artifacts.of_job(session, job)


def test_download_writes_pictures_as_files_with_their_records(genmill, picture_job, tmp_path):
    done = genmill("artifact", "download", picture_job, "-o", "out")
    assert (done.code, done.out) == (0, "out\n")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{i:09d}.{kind}" for i in range(5) for kind in ("json", "png")]
    record = json.loads((tmp_path / "out" / "000000003.json").read_text("utf-8"))
    assert record["index"] == 3
    assert read_png_record(tmp_path / "out" / "000000003.png") == record


def test_download_without_a_folder_goes_into_one_named_after_the_job(genmill, picture_job):
    done = genmill("artifact", "download", picture_job[:20])
    assert done.out == f"genmill-{picture_job}\n"
    assert Path(f"genmill-{picture_job}").is_dir()


def test_download_as_webdataset_keeps_the_tars(genmill, services, picture_job, tmp_path):
    assert genmill("artifact", "download", picture_job, "-o", "out", "--as", "webdataset").code == 0
    stored = objects_of(services, picture_job)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [a.name for a in stored]
    with tarfile.open(tmp_path / "out" / stored[0].name) as tar:
        assert tar.getnames()[:2] == ["000000000.png", "000000000.json"]


def test_download_of_texts_is_one_json_lines_file_in_order(genmill, text_job, tmp_path):
    assert genmill("artifact", "download", text_job, "-o", "out").code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["samples.jsonl"]
    lines = (tmp_path / "out/samples.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["index"] for row in rows] == [0, 1, 2]
    assert rows[2]["text"] == "text number 2, 第2段"


def test_download_of_texts_as_files(genmill, text_job, tmp_path):
    assert genmill("artifact", "download", text_job, "-o", "out", "--as", "files").code == 0
    assert (tmp_path / "out/000000001.txt").read_text("utf-8") == "text number 1, 第1段"


def test_texts_are_refused_as_webdataset(genmill, text_job):
    refused = genmill("artifact", "download", text_job, "-o", "out", "--as", "webdataset")
    assert refused.code == 2
    assert "--as jsonl" in refused.err


def test_texts_of_notes_download_as_midi(genmill, note_job, tmp_path):
    done = genmill("artifact", "download", note_job, "-o", "out", "--as", "midi")
    assert (done.code, done.out) == (0, "out\n")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{i:09d}.mid" for i in range(3)]
    text = midi_to_text((tmp_path / "out/000000002.mid").read_bytes())
    assert text == "t100 62:4"


def test_texts_of_notes_download_as_wav(genmill, note_job, tmp_path):
    assert genmill("artifact", "download", note_job, "-o", "out", "--as", "wav").code == 0
    with wave.open(str(tmp_path / "out/000000001.wav")) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 22_050)
        assert sound.getnframes() == pytest.approx(0.65 * 22_050, abs=2)  # 0.6 s, and 0.05 to fade


def test_sounds_download_as_wav_files_with_their_records(genmill, sound_job, tmp_path):
    assert genmill("artifact", "download", sound_job, "-o", "out").code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{i:09d}.{kind}" for i in range(3) for kind in ("json", "wav")]
    record = json.loads((tmp_path / "out/000000002.json").read_text("utf-8"))
    assert read_wav_record(tmp_path / "out/000000002.wav") == record
    with wave.open(str(tmp_path / "out/000000002.wav")) as sound:
        assert (sound.getnchannels(), sound.getframerate(), sound.getnframes()) == (1, 8000, 80)


def test_sounds_download_as_tars_and_as_the_lines_of_their_records(genmill, sound_job, tmp_path):
    for form in ("webdataset", "jsonl"):
        assert genmill("artifact", "download", sound_job, "-o", form, "--as", form).code == 0
    with tarfile.open(min((tmp_path / "webdataset").iterdir())) as tar:
        assert tar.getnames()[:2] == ["000000000.wav", "000000000.json"]
    rows = (tmp_path / "jsonl/samples.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(row)["index"] for row in rows] == [0, 1, 2]


def test_a_damaged_sound_is_fetched_again_and_a_whole_one_is_not(genmill, sound_job, tmp_path):
    genmill("artifact", "download", sound_job, "-o", "out")
    first, second = (tmp_path / "out" / f"00000000{i}.wav" for i in (0, 2))
    good, untouched = second.read_bytes(), first.stat().st_ino
    second.write_bytes(good[:-1])
    assert genmill("artifact", "download", sound_job, "-o", "out").code == 0
    assert second.read_bytes() == good
    assert first.stat().st_ino == untouched


def test_sounds_are_verified_and_made_again(genmill, sound_job, worker):
    assert genmill("artifact", "verify", sound_job).code == 0
    assert genmill("artifact", "reproduce", sound_job, "2").code == 0


def test_texts_without_a_note_are_left_out_and_counted(genmill, noise_job, tmp_path):
    done = genmill("artifact", "download", noise_job, "-o", "out", "--as", "midi")
    assert done.code == 0
    assert "1 text without notes skipped" in done.err
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["000000000.mid", "000000001.mid"]


@pytest.mark.parametrize("form", ["midi", "wav"])
def test_what_holds_no_notes_is_not_played(genmill, picture_job, text_job, form):
    pictures = genmill("artifact", "download", picture_job, "-o", "out", "--as", form)
    assert (pictures.code, pictures.out) == (2, "")
    assert f"image samples cannot be downloaded as {form}; use --as files" in pictures.err
    texts = genmill("artifact", "download", text_job, "-o", "out", "--as", form)
    assert (texts.code, texts.out) == (2, "")
    assert "none of the 3 samples holds a note such as 60:4" in texts.err


def test_records_of_pictures_download_as_json_lines(genmill, picture_job, tmp_path):
    assert genmill("artifact", "download", picture_job, "-o", "out", "--as", "jsonl").code == 0
    rows = (tmp_path / "out/samples.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(row)["index"] for row in rows] == [0, 1, 2, 3, 4]


def test_download_again_fetches_only_what_is_missing_or_damaged(
    genmill, services, picture_job, tmp_path
):
    genmill("artifact", "download", picture_job, "-o", "out")
    first, second = (tmp_path / "out" / f"00000000{i}.png" for i in (0, 4))
    good = second.read_bytes()
    second.write_bytes(b"torn")
    untouched = first.stat().st_ino
    assert genmill("artifact", "download", picture_job, "-o", "out").code == 0
    assert second.read_bytes() == good
    assert first.stat().st_ino == untouched


def test_a_name_that_leads_outside_is_not_used(genmill, services, picture_job, tmp_path):
    with services.database.write() as session:
        for each in artifacts.of_job(session, picture_job):
            each.name = f"../{each.id}.tar"
    for form in ("webdataset", "files"):
        assert genmill("artifact", "download", picture_job, "-o", "in/out", "--as", form).code == 0
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["out"]


def test_download_with_a_wrong_digest_fails_and_keeps_nothing(
    genmill, services, picture_job, tmp_path
):
    damage(services, picture_job)
    failed = genmill("artifact", "download", picture_job, "-o", "out")
    assert failed.code == 1
    assert "SHA-256" in failed.err
    assert not (tmp_path / "out/000000000.png").exists()


def test_download_of_a_job_without_artifacts_says_so(genmill, services, digits):
    job = genmill("enqueue", "generate", digits, "--count", "1").out.strip()
    empty = genmill("artifact", "download", job, "-o", "out")
    assert (empty.code, empty.err) == (4, f"Error: nothing is committed yet by {job}\n")


def test_download_of_a_batch_makes_a_folder_a_job(genmill, services, digits, commit, tmp_path):
    Path("batch.jsonl").write_text(
        '{"custom_id": "a", "kind": "generate", "model": "digits", "count": 1}\n'
        '{"custom_id": "b", "kind": "generate", "model": "digits", "count": 2}\n'
    )
    batch = genmill("enqueue", "batch", "batch.jsonl").out.strip()
    with services.database.read() as session:
        made = [job.id for job in batches.jobs_of(session, batch)]
    for job in made:
        commit(job)
    assert genmill("artifact", "download", batch, "-o", "out").code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(made)
    assert (tmp_path / "out" / made[1] / "000000001.png").is_file()


def test_verify_is_clean_for_what_was_committed(genmill, picture_job):
    (row,) = genmill("artifact", "verify", picture_job, "--json").json
    assert row == {"job": picture_job, "objects": 3, "samples": 5, "problems": []}


def test_verify_tells_each_damaged_sample_and_object(genmill, services, picture_job):
    name = damage(services, picture_job)
    wrong = genmill("artifact", "verify", picture_job)
    assert wrong.code == 1
    assert f"{name}: sample 0: SHA-256 differs from the record" in wrong.err
    assert f"{name}: SHA-256 is" in wrong.err


def test_verify_tells_a_missing_object(genmill, services, picture_job):
    lost = objects_of(services, picture_job)[1]
    services.store.delete(lost.key)
    wrong = genmill("artifact", "verify", picture_job)
    assert wrong.code == 1
    assert lost.name in wrong.err


def test_verify_tells_a_changed_manifest(genmill, services, picture_job):
    path = services.settings.home / "store" / "jobs" / picture_job / "manifest.json"
    path.write_bytes(path.read_bytes() + b" ")
    assert "manifest: SHA-256 is" in genmill("artifact", "verify", picture_job).err


def test_verify_tells_a_sample_that_is_not_on_record(genmill, services, picture_job):
    with services.database.write() as session:
        session.delete(artifacts.holding(session, picture_job, 4)[0])
    assert "4 samples are on record, 5 were made" in genmill("artifact", "verify", picture_job).err


def test_verify_tells_a_changed_index(genmill, services, picture_job):
    with services.database.write() as session:
        artifact, _ = artifacts.holding(session, picture_job, 4)
        *others, last = artifact.index_data
        artifact.index_data = bytes([*others, last ^ 1])
    said = genmill("artifact", "verify", picture_job).err
    assert f"{artifact.name}: sample 4: SHA-256 differs" in said
    assert f"{artifact.name}: index: its digests differ from the record" in said


def test_verify_tells_an_index_that_is_cut_off(genmill, services, picture_job):
    with services.database.write() as session:
        artifact, _ = artifacts.holding(session, picture_job, 4)
        artifact.index_data = artifact.index_data[:-1]
    said = genmill("artifact", "verify", picture_job).err
    assert "index: artifact" in said
    assert "an index of 43 bytes is not one of 1 samples" in said


def test_the_index_of_a_long_shard_is_an_object_of_its_own(genmill, services, digits, commit):
    job = genmill("enqueue", "generate", digits, "--count", "9").out.strip()
    commit(job)
    (artifact,) = (each for each in objects_of(services, job) if each.kind == "samples")
    assert artifact.index_key in services.store.keys("jobs")
    assert genmill("artifact", "verify", job).code == 0
    assert genmill("artifact", "download", job, "-o", "out").code == 0
    assert len(list(Path("out").glob("*.png"))) == 9
    services.store.delete(artifact.index_key)
    assert f"{artifact.name}: index: no object" in genmill("artifact", "verify", job).err
    lost = genmill("artifact", "download", job, "-o", "again")
    assert (lost.code, f"{artifact.name} of job {job}: no object" in lost.err) == (1, True)


def test_verify_tells_rows_that_were_changed_since_the_manifest(genmill, services, picture_job):
    with services.database.write() as session:
        artifacts.of_job(session, picture_job)[0].name = "other.tar"
    assert ", computed " in genmill("artifact", "verify", picture_job).err


def test_list_and_url_lead_to_the_bytes(genmill, picture_job):
    rows = genmill("artifact", "list", picture_job, "--json").json
    address = genmill("artifact", "url", rows[0]["id"], "--expires", "1h").out.strip()
    data = Path(unquote(urlsplit(address).path)).read_bytes()
    assert hashlib.sha256(data).hexdigest() == rows[0]["sha256"]


def test_an_unknown_time_span_is_refused_with_examples(genmill, picture_job):
    refused = genmill("artifact", "url", picture_job, "--expires", "soon")
    assert refused.code == 2
    assert "90s, 15m, 1h or 7d" in refused.err


def test_reproduce_refuses_what_is_not_there(genmill, picture_job):
    assert genmill("artifact", "reproduce", picture_job, "99").code == 4
    assert genmill("artifact", "reproduce", picture_job, "-1").code == 2


def test_reproduce_makes_a_sample_again_and_finds_it_the_same(genmill, picture_job, worker):
    same = genmill("artifact", "reproduce", picture_job, "3", "--json")
    assert same.code == 0, same.err
    assert same.json["equal"] is True
    assert same.json["job"] != picture_job
    (made,) = genmill("job", "show", same.json["job"], "--json").json["shards"]
    assert (made["start"], made["stop"]) == (3, 4)


def test_reproduce_without_a_worker_says_what_to_start(genmill, picture_job, worker, caplog):
    assert genmill("artifact", "reproduce", picture_job, "3").code == 0  # one that is not on record
    assert "no worker is running; start one with `genmill up`" in caplog.text


def test_reproduce_fails_when_the_record_has_another_digest(genmill, services, picture_job, worker):
    with services.database.write() as session:
        artifact, shard = artifacts.holding(session, picture_job, 3)
        index = SampleIndex.decode(artifact.index_data, range(shard.start, shard.stop))
        changed = [entry._replace(sha256="0" * 64) for entry in index]
        artifact.index_data = SampleIndex.of(changed).data
    other = genmill("artifact", "reproduce", picture_job, "3")
    assert other.code == 1
    assert "differs from the one on record" in other.err


def damage(services, job: str) -> str:
    """Change a byte inside the first sample of the first shard's object."""
    first = objects_of(services, job)[0]
    path = services.settings.home / "store" / first.key
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    return first.name


def test_a_damaged_record_beside_a_picture_is_fetched_again(genmill, picture_job, tmp_path):
    genmill("artifact", "download", picture_job, "-o", "out")
    record = tmp_path / "out/000000004.json"
    good = record.read_bytes()
    record.write_bytes(good.replace(b"index", b"iXdex"))
    assert genmill("artifact", "download", picture_job, "-o", "out").code == 0
    assert record.read_bytes() == good


def test_a_damaged_text_beside_its_line_is_fetched_again(genmill, text_job, tmp_path):
    words = ("artifact", "download", text_job, "-o", "out", "--as", "files")
    genmill(*words)
    text = tmp_path / "out/000000002.txt"
    good = text.read_bytes()
    text.write_bytes(b"torn")
    assert genmill(*words).code == 0
    assert text.read_bytes() == good


def test_a_download_or_export_into_a_file_is_wrong_usage(genmill, digits, picture_job, tmp_path):
    (tmp_path / "file").touch()
    for words in (("artifact", "download", picture_job, "-o"), ("model", "export", digits)):
        wrong = genmill(*words, "file")
        assert (wrong.code, wrong.out) == (2, "")
        assert "is a file" in wrong.err
