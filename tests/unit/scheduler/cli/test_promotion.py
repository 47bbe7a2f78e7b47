"""Which version a name means: set, promoted by the gate, refused, forced, rolled back."""

import getpass
import json
import socket

import pytest

from tests.evaluations import add_dataset, add_evaluation, add_version, images

WORSE, BETTER = images(1, shift=0.5), images(2)


@pytest.fixture
def versions(services):
    """Three versions of digits: a poor one, a better one, and one that was never evaluated."""
    for _ in range(3):
        add_version(services)
    add_dataset(services)
    add_evaluation(services, "digits:1", WORSE)
    add_evaluation(services, "digits:2", BETTER)


def champion(genmill):
    (row,) = genmill("model", "list", "--json").json
    return row["version"], row["means"]


def history(genmill, *options):
    return genmill("model", "history", "digits", "--json", *options).json


def test_an_alias_is_set_moved_and_removed(genmill, versions):
    assert champion(genmill) == (3, "newest")
    done = genmill("model", "alias", "digits:1", "--as", "champion", "--why", "the first")
    assert (done.code, done.out) == (0, "digits@champion is digits:1\n")
    assert champion(genmill) == (1, "champion")
    genmill("model", "alias", "digits:2", "--as", "champion")
    removed = genmill("model", "alias", "digits", "--as", "champion", "--remove")
    assert removed.out == "digits@champion was removed\n"
    assert champion(genmill) == (3, "newest")
    *_, first = history(genmill)
    assert (first["outcome"], first["version"], first["why"]) == ("set", 1, "the first")
    assert first["who"] == f"{getpass.getuser()}@{socket.gethostname()}"
    assert [each["outcome"] for each in history(genmill)] == ["removed", "set", "set"]


def test_aliases_are_listed_of_one_model_or_of_all(genmill, versions, services):
    add_version(services, "pets")
    assert genmill("model", "alias", "--json").json == []
    genmill("model", "alias", "digits:2", "--as", "champion")
    genmill("model", "alias", "digits:1", "--as", "tested")
    genmill("model", "alias", "pets:1", "--as", "tested")
    champion = {"model": "digits", "alias": "champion", "version": 2}
    tested = {"model": "digits", "alias": "tested", "version": 1}
    assert genmill("model", "alias", "digits", "--json").json == [champion, tested]
    assert len(genmill("model", "alias", "--json").json) == 3
    assert "champion  2" in genmill("model", "alias", "digits").out
    (row, _) = genmill("model", "list").out.splitlines()[1:]
    assert row.split()[:3] == ["digits", "2", "champion"]


def test_an_alias_is_removed_by_its_reference(genmill, versions):
    genmill("model", "alias", "digits:2", "--as", "tested")
    wrong = genmill("model", "alias", "digits:1", "--as", "tested", "--remove")
    assert (wrong.code, wrong.out) == (2, "")
    assert "digits@tested is digits:2, not digits:1" in wrong.err
    assert genmill("model", "alias", "digits", "--remove").code == 2
    assert genmill("model", "alias", "--as", "tested").code == 2
    removed = genmill("model", "alias", "digits@tested", "--remove")
    assert (removed.code, removed.out) == (0, "digits@tested was removed\n")
    assert genmill("model", "alias", "digits", "--json").json == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("digits:1", "--as", "latest"), 2, "already means a version"),
        (("digits:1", "--as", "9lives"), 2, "beginning with a letter"),
        (("digits:9", "--as", "champion"), 4, "no version '9'"),
        (("digit:1", "--as", "champion"), 4, "did you mean 'digits'"),
        (("digits", "--as", "champion", "--remove"), 4, "no alias 'champion'"),
    ],
)
def test_a_wrong_alias_is_refused(genmill, versions, words, code, says):
    done = genmill("model", "alias", *words)
    assert done.code == code
    assert says in done.err
    assert history(genmill) == []


def test_the_first_version_is_promoted_because_there_is_no_champion(genmill, versions):
    done = genmill("model", "promote", "digits:1")
    assert done.code == 0
    assert "there is no champion to compare it with" in done.err
    assert champion(genmill) == (1, "champion")


def test_the_better_version_is_promoted_with_its_numbers(genmill, versions):
    genmill("model", "promote", "digits:1")
    done = genmill("model", "promote", "digits:2", "--json", "--why", "more data")
    assert done.code == 0, done.err
    assert "digits:2 is the champion now: kid went from" in done.err
    assert done.json["primary"]["low"] > 0
    assert (done.json["candidate"], done.json["champion"]) == (2, 1)
    newest = history(genmill)[0]
    assert (newest["outcome"], newest["version"], newest["previous"]) == ("promoted", 2, 1)
    assert newest["verdict"] == done.json
    shown = genmill("model", "history", "digits").out
    assert "more data" in shown
    assert "kid went from" in shown


def test_a_worse_version_is_refused_with_the_numbers_and_exit_code_1(genmill, versions):
    genmill("model", "promote", "digits:2")
    done = genmill("model", "promote", "digits:1")
    assert done.code == 1
    assert "digits:1 does not become the champion: kid went from" in done.err
    assert "kid" in done.out
    assert champion(genmill) == (2, "champion")
    newest = history(genmill)[0]
    assert (newest["outcome"], newest["version"], newest["previous"]) == ("refused", 1, 2)
    assert json.loads(genmill("model", "promote", "digits:1", "--json").out) == newest["verdict"]


def test_a_version_that_was_never_evaluated_is_refused(genmill, versions):
    done = genmill("model", "promote", "digits:3")
    assert done.code == 1
    assert "it has not been evaluated" in done.err
    assert "genmill enqueue evaluate digits:3" in done.err
    assert history(genmill)[0]["outcome"] == "refused"


def test_a_champion_that_was_not_measured_so_is_named_with_what_to_run(genmill, versions):
    genmill("model", "alias", "digits:3", "--as", "champion")
    done = genmill("model", "promote", "digits:2")
    assert done.code == 1
    assert "digits:3 was not evaluated by the same protocol" in done.err
    assert (
        "genmill enqueue evaluate digits:2 --dataset pets:1 --wait --against digits:3" in done.err
    )


def test_force_promotes_and_is_recorded(genmill, versions):
    genmill("model", "promote", "digits:2")
    for version in (1, 3):
        done = genmill("model", "promote", f"digits:{version}", "--force")
        assert done.code == 0
        assert "by force" in done.err
        assert champion(genmill) == (version, "champion")
        assert history(genmill)[0]["outcome"] == "forced"
    assert history(genmill)[1]["verdict"]["promoted"] is False


def test_rollback_returns_to_the_version_before(genmill, versions):
    genmill("model", "promote", "digits:1")
    genmill("model", "promote", "digits:2")
    done = genmill("model", "rollback", "digits", "--why", "blurred sevens")
    assert (done.code, done.out) == (0, "digits@champion is digits:1\n")
    assert champion(genmill) == (1, "champion")
    newest = history(genmill)[0]
    assert (newest["outcome"], newest["version"], newest["previous"]) == ("rolled back", 1, 2)
    again = genmill("model", "rollback", "digits")
    assert again.code == 2
    assert "had the alias 'champion' before" in again.err


def test_a_policy_file_decides(genmill, versions, tmp_path):
    genmill("model", "promote", "digits:1")
    policy = tmp_path / "strict.toml"
    policy.write_text('[primary]\nmetric = "kid"\nmargin = 1000\n')
    done = genmill("model", "promote", "digits:2", "--policy", str(policy))
    assert done.code == 1
    assert "not more than the margin of 1000" in done.err
    policy.write_text('[primary]\nmetrc = "kid"\n')
    wrong = genmill("model", "promote", "digits:2", "--policy", str(policy))
    assert wrong.code == 2
    assert "primary has no key 'metrc'" in wrong.err


def test_promoting_the_champion_again_changes_nothing(genmill, versions):
    genmill("model", "promote", "digits:1")
    done = genmill("model", "promote", "digits:1")
    assert done.code == 0
    assert "is the champion already" in done.err
    assert len(history(genmill)) == 1


def test_lost_items_are_a_refusal(genmill, services, versions):
    genmill("model", "promote", "digits:1")
    services.store.delete(add_evaluation(services, "digits:2", images(3, protocol="q")))
    add_evaluation(services, "digits:1", images(4, protocol="q"))
    done = genmill("model", "promote", "digits:2")
    assert done.code == 1
    assert history(genmill)[0]["outcome"] == "refused"


def test_another_alias_has_its_own_holder(genmill, versions):
    genmill("model", "promote", "digits:1")
    done = genmill("model", "promote", "digits:2", "--alias", "challenger")
    assert "digits:2 is the challenger now: there is no champion" in done.err
    assert champion(genmill) == (1, "champion")
    assert [each["alias"] for each in history(genmill, "--alias", "challenger")] == ["challenger"]


def test_an_alias_that_a_schedule_names_stays(genmill, versions):
    assert genmill("model", "alias", "digits:1", "--as", "tested").code == 0
    words = ("enqueue", "generate", "digits@tested", "--count", "2")
    genmill("schedule", "add", "nightly", "--cron", "0 3 * * *", "--", *words)
    refused = genmill("model", "alias", "digits@tested", "--remove")
    assert refused.code == 2
    assert "1 schedule would fail without it: nightly" in refused.err
    assert genmill("model", "alias", "digits:2", "--as", "tested").code == 0
    assert genmill("schedule", "remove", "nightly").code == 0
    assert genmill("model", "alias", "digits@tested", "--remove").code == 0
