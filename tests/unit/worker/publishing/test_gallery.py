"""A gallery as its visitors see it, in a folder and in a bucket."""

import json
import os
import stat
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial

import feedparser
import pytest

from db.errors import NotFound, Refused
from tests.site_pages import JOB, Page, check_links, listed, pages_of, read_site, sample
from tests.unit.worker.marks.kit import SHAPES, samples_of
from worker.keys.keyring import Keyring
from worker.mark_profile import Profile
from worker.marks.apply import Marker
from worker.marks.base import Marking
from worker.marks.licence import LicenceSettings
from worker.media.samples.record import AI_GENERATED
from worker.publishing import find_kind
from worker.publishing.base import Delivery, Item, ItemRefused, Presence, TargetAway
from worker.publishing.gallery import Gallery
from worker.publishing.pages import render
from worker.publishing.pages.selections import pages as pages_of_items

DEEP = "[" * 100_000  # JSON that Python cannot parse


def opened(address: str, **settings) -> Gallery:
    kind = find_kind("gallery")
    return kind(kind.parse({"address": address, **settings}), {})


@pytest.fixture
def gallery(tmp_path) -> Gallery:
    folder = tmp_path / "site"
    folder.mkdir()
    return opened(str(folder))


@pytest.fixture(params=["folder", "bucket"])
def any_gallery(request, tmp_path) -> Gallery:
    if request.param == "folder":
        return request.getfixturevalue("gallery")
    s3 = request.getfixturevalue("s3")
    return opened(f"s3://{s3.bucket}/site?endpoint_url={s3.endpoint_url}")


def put(gallery, *samples) -> list[str]:
    ids = [gallery.put(*each) for each in samples]
    gallery.finish()
    return ids


def files_of(gallery) -> dict[str, bytes]:
    return read_site(gallery.store)


def page(gallery, name: str) -> Page:
    return Page(files_of(gallery)[name].decode())


MEDIA = ("image", "audio", "text", "music")


def test_what_is_put_is_listed_and_given_back_until_it_is_taken_down(any_gallery):
    any_gallery.check()
    samples = [sample(index, what, label="cat") for index, what in enumerate(MEDIA)]
    ids = put(any_gallery, *samples)
    assert ids == [any_gallery.locate(item) for item, *_ in samples]
    assert sorted(any_gallery.list()) == sorted(ids)
    assert [any_gallery.fetch(each) for each in ids] == [data for _, data, _ in samples]
    files = files_of(any_gallery)
    check_links(files)
    assert listed(pages_of(files)) == set(ids)
    for each in ids[1:]:
        any_gallery.take_down(each)
    any_gallery.finish()
    assert list(any_gallery.list()) == ids[:1]
    files = files_of(any_gallery)
    check_links(files)
    key = ids[1].removeprefix("items/").removesuffix(".html")
    assert not [name for name in files if key in name]
    assert key.encode() not in b"".join(files.values())
    with pytest.raises(NotFound):
        any_gallery.fetch(ids[1])
    any_gallery.take_down(ids[1])  # again


def test_an_item_that_is_put_again_is_one_item_with_its_first_time(gallery):
    first = sample(label="cat")
    put(gallery, first)
    feed = feedparser.parse(files_of(gallery)["feed.xml"])
    put(gallery, first)
    again = feedparser.parse(files_of(gallery)["feed.xml"])
    assert [each.updated for each in feed.entries] == [each.updated for each in again.entries]
    assert len(list(gallery.list())) == 1


def test_a_page_tells_where_its_item_comes_from_and_how_to_check_it(tmp_path):
    (tmp_path / "site").mkdir()
    gallery = opened(str(tmp_path / "site"), licence="https://example.org/licence", title="Ours")
    [name] = put(gallery, sample(17, label="cat", prompt="a black cat"))
    shown = page(gallery, name)
    for known in ("digits:3", JOB, "17", "gan", "cat", "cd" * 32, "ab" * 32, "a black cat"):
        assert known in shown.words
    assert "AI-generated" in shown.words
    file = f"{JOB}-000000017.png"
    assert f"genmill provenance verify {file}" in shown.words
    assert {"href": "https://example.org/licence", "rel": "license"}.items() <= {
        k: v for each in shown.of("a") if each.get("rel") == "license" for k, v in each.items()
    }.items()
    assert f"../files/{file}" in shown.links()
    assert f"../records/{JOB}-000000017.json" in shown.links()
    record = json.loads(files_of(gallery)[f"records/{JOB}-000000017.json"])
    assert (record["model"], record["index"]) == ("digits:3", 17)
    data = shown.linked_data
    assert (data["@type"], data["digitalSourceType"]) == ("ImageObject", AI_GENERATED)
    assert (data["contentUrl"], data["sha256"]) == (f"../files/{file}", "cd" * 32)


@pytest.mark.parametrize(
    ("what", "kind"),
    [("image", "ImageObject"), ("audio", "AudioObject"), ("text", "CreativeWork")],
)
def test_programs_are_told_what_each_medium_is(gallery, what, kind):
    [name] = put(gallery, sample(0, what))
    assert page(gallery, name).linked_data["@type"] == kind
    [part] = page(gallery, "index.html").linked_data["hasPart"]
    assert (part["@type"], part["digitalSourceType"]) == (kind, AI_GENERATED)
    check_links(files_of(gallery))


def test_a_licence_is_shown_by_its_name_and_leads_to_its_words(gallery):
    settings = LicenceSettings(licence="CC-BY-4.0", licence_url="https://example.org/by")
    profile = Profile(name="ours", marks=("licence",), settings={"licence": dict(settings)})
    marker = Marker(Marking(profile, Keyring(()), SHAPES["image"]))
    [data] = marker.encode(samples_of("image", 1), SHAPES["image"])
    what, _, record = sample(0)
    [name] = put(gallery, (what, data, record))
    shown = page(gallery, name)
    [link] = [each for each in shown.of("a") if each.get("rel") == "license"]
    assert link["href"] == "https://example.org/by"
    assert "CC-BY-4.0" in shown.words
    assert "example.org" not in shown.words


def test_sounds_and_music_have_a_player_and_texts_their_words(gallery):
    names = put(gallery, *(sample(index, what) for index, what in enumerate(MEDIA)))
    shown = [page(gallery, name) for name in names]
    assert [len(each.of("audio")) for each in shown] == [0, 1, 0, 1]
    assert [len(each.of("img")) for each in shown] == [1, 1, 0, 1]
    assert "The quick brown fox." in shown[2].words
    front = page(gallery, "index.html")
    assert (len(front.of("img")), len(front.of("audio"))) == (3, 2)
    assert "The quick brown fox." in front.words


def test_pages_are_fit_for_all_readers(gallery):
    put(gallery, *(sample(i, what, label="猫 & cats") for i, what in enumerate(MEDIA)))
    for name, shown in pages_of(files_of(gallery)).items():
        assert shown.of("html") == [{"lang": "en"}], name
        assert len(shown.of("h1")) == 1, name
        assert "AI-generated" in shown.words, name
        assert all(each.get("alt") for each in shown.of("img")), name
        assert all(each.get("aria-label") for each in shown.of("audio") + shown.of("nav")), name
        assert {each.get("type") for each in shown.of("script")} <= {"application/ld+json"}, name
        [viewport] = [each for each in shown.of("meta") if each.get("name") == "viewport"]
        assert viewport["content"] == "width=device-width, initial-scale=1"


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'\x1b\x7f"


def test_what_a_model_or_a_user_wrote_is_shown_and_never_run(gallery):
    put(gallery, sample(0, label=HOSTILE), sample(1, "text", prompt=HOSTILE))
    files = files_of(gallery)
    check_links(files)
    for shown in pages_of(files).values():
        assert {each.get("type") for each in shown.of("script")} <= {"application/ld+json"}
        assert not [each for _, each in shown.tags if any(name.startswith("on") for name in each)]
        [policy] = [each for each in shown.of("meta") if "http-equiv" in each]
        assert "script-src 'none'" in str(policy["content"])
    assert not feedparser.parse(files["feed.xml"]).bozo


def test_items_are_filtered_by_label_and_model_on_pages_of_their_own(gallery):
    put(
        gallery,
        sample(0, label="cat"),
        sample(1, label="dog"),
        sample(2, label="A.cat"),
        sample(3, label="cat", model="digits:4"),
    )
    files = files_of(gallery)
    front = page(gallery, "index.html")
    assert len([each for each in front.links() if each.startswith("lists/")]) == 5
    pages = pages_of(files)
    cats = pages["lists/label.cat.html"]
    assert len(listed({"lists/label.cat.html": cats})) == 2
    [pair] = [name for name in pages if name.startswith("lists/label.cat.model.digits-4")]
    assert len(listed({pair: pages[pair]})) == 1
    assert resolve_chip(cats, "digits:4") == pair.removeprefix("lists/")


def resolve_chip(shown: Page, words: str) -> str:
    """Where the chip with these words leads."""
    at = shown.text.index(f">{words} <span")
    return shown.text[:at].rpartition('href="')[2].partition('"')[0].removeprefix("../lists/")


def test_many_items_are_on_pages_each_once_the_newest_first(gallery, monkeypatch):
    monkeypatch.setattr(render, "pages", partial(pages_of_items, size=6))
    put(gallery, *(sample(index, label=str(index % 2)) for index in range(13)))
    pages = pages_of(files_of(gallery))
    names = ["index.html", "lists/all.2.html", "lists/all.3.html"]
    found = [listed({name: pages[name]}) for name in names]
    assert [len(each) for each in found] == [6, 6, 1]
    assert len(set.union(*found)) == 13
    assert gallery.locate(sample(12)[0]) in found[0]
    assert "page 2 of 3" in pages[names[1]].words
    assert len(listed({"lists/label.0.2.html": pages["lists/label.0.2.html"]})) == 1
    for index in range(4, 13):
        gallery.take_down(gallery.locate(sample(index)[0]))
    gallery.finish()
    left = pages_of(files_of(gallery))
    assert not {"lists/all.2.html", "lists/all.3.html"} & left.keys()
    assert len(listed(left)) == 4


def test_the_feed_is_read_by_other_people_s_readers(tmp_path):
    (tmp_path / "site").mkdir()
    url = "https://example.org/gallery"
    gallery = opened(str(tmp_path / "site"), title="Cats & dogs", url=url, licence="CC0-1.0")
    before = datetime.now(UTC) - timedelta(seconds=1)
    put(gallery, sample(0, label="cat"), sample(1, "audio", label="dog <b>"))
    feed = feedparser.parse(files_of(gallery)["feed.xml"])
    assert not feed.bozo
    assert (feed.version, feed.feed.title) == ("atom10", "Cats & dogs")
    assert {each.title for each in feed.entries} == {"cat", "dog <b>"}
    assert len({each.id for each in feed.entries}) == 2
    for each in feed.entries:
        assert each.link.startswith(f"{url}/items/")
        assert before <= datetime.fromisoformat(each.updated) <= datetime.now(UTC)
        assert AI_GENERATED in {tag.term for tag in each.tags}
        assert each.rights == "CC0-1.0"
    [sound] = [each for each in feed.entries if each.title != "cat"]
    [enclosure] = sound.enclosures
    assert (enclosure.type, int(enclosure.length)) == (
        "audio/wav",
        len(sample(1, "audio", label="dog <b>")[1]),
    )
    gallery.take_down(gallery.locate(sample(0)[0]))
    gallery.finish()
    left = feedparser.parse(files_of(gallery)["feed.xml"])
    assert [each.title for each in left.entries] == ["dog <b>"]


def test_an_empty_gallery_says_so(gallery):
    gallery.finish()
    assert "Nothing is published here" in page(gallery, "index.html").words
    feed = feedparser.parse(files_of(gallery)["feed.xml"])
    assert (feed.bozo, feed.entries) == (False, [])


def test_files_can_be_read_by_whoever_serves_them(gallery, tmp_path):
    put(gallery, sample())
    paths = [each for each in (tmp_path / "site").rglob("*") if ".tmp" not in each.parts]
    modes = {stat.S_IMODE(each.stat().st_mode) for each in paths if each.is_file()}
    assert modes == {0o644}
    assert {stat.S_IMODE(each.stat().st_mode) for each in paths if each.is_dir()} == {0o755}


class Killed(BaseException):
    """What stands for the end of the process."""


@pytest.mark.slow
def test_killed_at_any_step_no_link_is_dead_and_the_next_try_completes_it(tmp_path, monkeypatch):
    samples = [sample(0, label="cat"), sample(1, "audio", label="dog"), sample(2, "music")]
    done, step = False, 0
    while not done:
        folder = tmp_path / str(step)
        folder.mkdir()
        gallery = opened(str(folder))
        put(gallery, samples[0])
        done = not killed_at(step, gallery, samples, monkeypatch)
        check_links(files_of(gallery), gone=gallery.locate(samples[0][0])[6:-5])
        replace(opened(str(folder)), samples)
        files = files_of(gallery)
        check_links(files)
        names = {gallery.locate(each[0]) for each in samples[1:]}
        assert listed(pages_of(files)) == names == {n for n in files if n.startswith("items/")}
        step += 1
    assert step > 20


def replace(gallery, samples) -> None:
    """Put two items and take down the third."""
    put(gallery, *samples[1:])
    gallery.take_down(gallery.locate(samples[0][0]))
    gallery.finish()


def killed_at(step: int, gallery, samples, monkeypatch) -> bool:
    """Whether the process was killed at this step, counted from 0, of writing and deleting."""
    steps = iter(range(step + 1))
    lock = threading.Lock()

    def counted(act):
        def call(*args, **named):
            with lock:
                if next(steps, None) == step:
                    raise Killed
            return act(*args, **named)

        return call

    for name in ("replace_public", "delete"):
        monkeypatch.setattr(gallery.store, name, counted(getattr(gallery.store, name)))
    try:
        replace(gallery, samples)
    except Killed:
        return True
    return False


@pytest.mark.slow
def test_several_workers_may_publish_to_one_gallery_at_once(gallery, tmp_path):
    def work(first: int) -> None:
        mine = opened(str(tmp_path / "site"))
        for index in range(first, first + 3):
            put(mine, sample(index, label=str(index)))

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 10, 20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    files = files_of(gallery)
    check_links(files)
    assert len(listed({"index.html": pages_of(files)["index.html"]})) == 9


def once_before(gallery, name: str, act, monkeypatch) -> None:
    """Have something done when the gallery is about to write this file for the first time."""
    write, acts = gallery.store.replace_public, [act]

    def interrupted(key, data, *, media_type):
        if key == name and acts:
            acts.pop()()
        write(key, data, media_type=media_type)

    monkeypatch.setattr(gallery.store, "replace_public", interrupted)


@pytest.mark.parametrize("name", ["catalogue.json", "feed.xml", "index.html"])
def test_the_last_lists_that_are_written_are_of_all_items_as_they_are(
    gallery, tmp_path, monkeypatch, name
):
    """Whatever another worker puts, changes or takes down while one writes its lists."""
    put(gallery, sample(0, label="cat"), sample(1, label="dog"))
    other = opened(str(tmp_path / "site"), licence="CC0-1.0")

    def meanwhile() -> None:
        other.take_down(other.locate(sample(1)[0]))
        put(other, sample(0, label="cat"), sample(2, label="owl"))  # the first one's licence is new

    once_before(gallery, name, meanwhile, monkeypatch)
    put(gallery, sample(3, label="elk"))
    files = files_of(gallery)
    check_links(files)
    names = [gallery.locate(sample(index)[0]) for index in (0, 2, 3)]
    assert sorted(listed(pages_of(files))) == names
    rights = {
        each.title: each.get("rights") for each in feedparser.parse(files["feed.xml"]).entries
    }
    assert rights == {"cat": "CC0-1.0", "owl": "CC0-1.0", "elk": None}


def test_what_somebody_changed_on_a_site_is_seen_and_repaired(gallery):
    item, data, record = sample(0, label="cat")
    delivery = Delivery(item, data, record)
    [page] = put(gallery, (item, data, record))
    key = page.removeprefix("items/").removesuffix(".html")
    names = [name for name in files_of(gallery) if key in name]
    assert len(names) == 4  # its own file, its record, its page and its entry

    def compared():
        return opened(gallery.settings.address).compare(delivery)

    assert compared() is Presence.UNCHANGED
    for name in [*names, "catalogue.json"]:
        gallery.store.replace_public(name, b"{}", media_type="text/plain")
        assert compared() is not Presence.UNCHANGED, name
        put(gallery, (item, data, record))
        assert compared() is Presence.UNCHANGED, name
    gallery.store.delete(f"files/{key}.png")
    assert compared() is Presence.MISSING


def test_items_that_change_again_and_again_are_not_listed_without_an_end(gallery, monkeypatch):
    put(gallery, sample(0))
    asked = []
    with monkeypatch.context() as patch:
        versions = gallery.store.versions

        def changing(prefix):
            asked.append(prefix)
            return [(name, f"{len(asked)}") for name, _ in versions(prefix)]

        patch.setattr(gallery.store, "versions", changing)
        with pytest.raises(TargetAway, match="were changed while they were listed"):
            gallery.finish()
    assert len(asked) < 10
    gallery.finish()


def test_damaged_entries_are_left_out_and_told(gallery, tmp_path, caplog):
    put(gallery, sample(0), sample(1))
    (tmp_path / "site/catalogue.json").write_text("{")
    path = tmp_path / f"site/entries/{JOB}-000000000.json"
    entry = json.loads(path.read_text())
    wrong = ({"width": "9"}, {"label": None}, {"key": "x"}, {"label": "\ud800"})
    wrong += ({"published_at": "2026-01-01"},)  # without a time zone
    for damaged in ("[1]", DEEP, *(json.dumps(entry | each) for each in wrong)):
        path.write_text(damaged)
        caplog.clear()
        gallery.finish()
        assert len(listed(pages_of(files_of(gallery)))) == 1
        assert "left out" in caplog.text
        (tmp_path / "site/catalogue.json").write_text(DEEP)
    gallery.finish()
    assert "made anew" in caplog.text


def test_what_cannot_be_shown_is_refused(gallery):
    item, data, record = sample()
    with pytest.raises(ItemRefused, match="cannot be shown"):
        gallery.put(item, data[:200], record)
    with pytest.raises(ItemRefused, match="cannot be shown"):
        gallery.put(item, b"nothing", record)
    model = Item("digits-3/model.safetensors", "e", "ab" * 32, "application/octet-stream")
    with pytest.raises(ItemRefused, match="a gallery shows samples"):
        gallery.put(model, b"", {})
    with pytest.raises(NotFound):
        gallery.fetch("items/../../secret.html")
    assert list(gallery.list()) == []


@pytest.mark.parametrize("address", ["relative", "ftp://x/y", "s3://", "file://"])
def test_a_wrong_address_is_refused(address):
    with pytest.raises(Refused, match="the target's address"):
        opened(address)


def test_a_wrong_url_is_refused(tmp_path):
    with pytest.raises(Refused, match="use a URL such as"):
        opened(str(tmp_path), url="javascript:alert(1)")


def test_what_a_killed_worker_left_half_written_is_removed(gallery):
    put(gallery, sample())
    folder = gallery.store.root / ".tmp"
    for name, age_s in (("new", 0), ("old", 4000)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    gallery.finish()
    assert [each.name for each in folder.iterdir()] == ["new"]


def test_a_folder_that_is_not_there_is_no_place_to_publish(tmp_path):
    gone = opened(str(tmp_path / "unmounted"))
    for act in (gone.check, gone.finish, lambda: gone.put(*sample())):
        with pytest.raises(TargetAway):
            act()
    assert not (tmp_path / "unmounted").exists()
