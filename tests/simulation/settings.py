"""The settings of all simulated processes: every waiting time as by default, but for the loop's."""

from pathlib import Path

from worker.settings import Settings

_settings: dict[int, Settings] = {}


def settings(max_claims: int) -> Settings:
    """The settings of all processes."""
    if max_claims not in _settings:
        _settings[max_claims] = Settings(
            _env_file=None,
            home=Path("simulated"),
            redis_url="redis://simulated",
            lease_s=60,
            loop_s=60,
            deadline_s=120,
            max_claims=max_claims,
            keep_history_days=0,
            keep_logs_days=0,
            keep_curves_days=0,
            keep_previews_days=0,
        )
    return _settings[max_claims]
