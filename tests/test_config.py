"""Configurations are strict, and packaged ones parse."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from brainmu.config import load_config, read_yaml, resource
from brainmu.errors import ConfigError, NotFoundError


@dataclass(frozen=True)
class Inner:
    size: int = 3


@dataclass(frozen=True)
class Config:
    rate: float = 1250.0
    mode: Literal["fast", "slow"] = "fast"
    name: str | None = None
    bands: tuple[float, ...] = ()
    inner: Inner = field(default_factory=Inner)


def test_file_and_overrides(tmp_path):
    p = tmp_path / "c.yaml"
    p.write_text("rate: 500\nbands: [1, 2.5]\ninner: {size: 4}\nname: null\n")
    c = load_config(Config, p, mode="slow", name=None)
    assert c == Config(500.0, "slow", None, (1.0, 2.5), Inner(4)) and load_config(Config) == Config()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rat: 500", "unknown key 'rat': did you mean 'rate'"),
        ("rate: fast", "rate: is 'fast', expected float"),
        ("mode: fats", "did you mean 'fast'"),
        ("inner: {sise: 4}", "inner: unknown key 'sise': did you mean 'size'"),
        ("inner: 4", "expected a mapping"),
        ("rate: true", "expected float"),
        ("rate: 1\nrate: 2", "key 'rate' appears twice"),
        ("rate: [1", "not valid YAML"),
        ("- 1", "holds a list"),
    ],
)
def test_errors_name_file_key_and_fix(tmp_path, text, says):
    p = tmp_path / "c.yaml"
    p.write_text(text)
    with pytest.raises(ConfigError, match=says) as e:
        load_config(Config, p)
    assert "c.yaml" in str(e.value)


def test_missing_names_list_what_there_is(tmp_path):
    with pytest.raises(NotFoundError, match="no config of that name"):
        resource("configs", "no/such")
    with pytest.raises(NotFoundError, match=r"name: did you mean 'pretrain/tiny'\? Packaged are pretrain/base, pretrain/large, pretrain/small, pretrain/tiny$"):
        resource("configs", "pretrain/tny")
    with pytest.raises(NotFoundError, match=r"absent\.yaml: no such file"):
        load_config(Config, tmp_path / "absent.yaml")
    with pytest.raises(NotFoundError, match="no such file"):
        read_yaml(tmp_path / "absent.yaml")
