"""What the command says while it trains."""

from __future__ import annotations

from brainmu.cli.pretrain import _clock, _Status


class TestStatus:
    def test_says_the_hours_seen_and_the_time_left(self):
        told = []
        status = _Status(lambda text, fraction: told.append((text, fraction)), every=0.0)
        status("pretrain: window", 0.25)  # a resumed run begins part of the way
        status.log({"stage": "window", "hours": 12.34})
        status("pretrain: window", 0.5)
        status("pretrain: encode", 0.5)
        assert told[0] == ("window", 0.25)
        assert told[1][0].startswith("window, 12.3 h of recording seen, 0:00:0") and told[1][0].endswith(" left")
        assert told[2] == ("encode", 0.5)

    def test_changes_its_text_seldom_where_every_text_is_a_line(self):
        texts = set()
        status = _Status(lambda text, fraction: texts.add(text), every=30.0)
        for i in range(100):
            status.log({"stage": "window", "hours": float(i)})
            status("pretrain: window", i / 100)
        assert texts == {"window"}

    def test_clock(self):
        assert [_clock(s) for s in (0.4, 61, 36_125)] == ["0:00:00", "0:01:01", "10:02:05"]
