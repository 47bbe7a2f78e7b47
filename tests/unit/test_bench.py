from click.testing import CliRunner

from tests.bench.__main__ import main


def test_a_comparison_that_does_not_exist_is_refused_with_those_that_do():
    done = CliRunner().invoke(main, ["--only", "gpt-trainning"])
    assert done.exit_code == 2
    assert "did you mean 'gpt-training'?" in done.output
    assert "memory" in done.output
