"""The benchmark reads its tools' output and judges its bars rightly; no server is started here."""
import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import loads  # noqa: E402
import report  # noqa: E402

DNSPERF = """
  Queries sent:         1000
  Queries completed:    998 (99.80%)
  Queries lost:         2 (0.20%)

  Response codes:       CODES
  Average packet size:  request 47, response 64
  Run time (s):         2.000000
  Queries per second:   499.0

  Average Latency (s):  0.000751 (min 0.000040, max 0.010)
"""


@pytest.mark.parametrize("codes, good", [
    ("NOERROR 998 (100.00%)", 998),
    ("NOERROR 90 (9.00%), NXDOMAIN 908 (91.00%)", 90),
    ("NXDOMAIN 998 (100.00%)", 0),
])
def test_only_noerror_counts_as_an_answer(codes, good):
    figures = loads.parse_dnsperf(DNSPERF.replace("CODES", codes))
    assert figures["operations"] == good
    assert figures["errors"] == 1000 - good
    assert figures["duration_s"] == 2
    assert figures["latency_ms"] == pytest.approx(0.751)


def test_output_without_figures_is_an_error_and_not_a_zero():
    with pytest.raises(loads.LoadError):
        loads.parse_dnsperf("Error: unable to connect")
    with pytest.raises(loads.LoadError):
        loads.parse_wrk("unable to connect to 127.0.0.1:8500 Connection refused")


class FixedClock:
    def read(self):
        return 2.0, 1.0


def test_a_load_that_mostly_fails_gives_no_figures():
    figures = loads.rates(1000, 10, 2, FixedClock(), {})
    assert (figures["per_s"], figures["cpu_us"], figures["strangers_pct"]) == (500, 2000, 1)
    for operations, errors in ((1000, 11), (0, 5), (0, 0)):
        with pytest.raises(loads.LoadError):
            loads.rates(operations, errors, 2, FixedClock(), {})


@pytest.mark.parametrize("bar, ratio, met", [
    ((report.AT_LEAST, 4), 4.0, True),
    ((report.AT_LEAST, 4), 3.99, False),
    ((report.AT_MOST, 0.25), 0.25, True),
    ((report.AT_MOST, 0.25), 0.26, False),
])
def test_a_bar_is_met_by_equality(bar, ratio, met):
    assert report.bar_met(bar, ratio) is met


def test_the_table_has_medians_ratios_and_the_bars_that_are_missed():
    ours = report.medians({"put-64": [{"per_s": rate, "cpu_us": 50} for rate in (900, 800, 100)]})
    theirs = report.medians({"put-64": [{"per_s": 100, "cpu_us": 100}] * 3})
    lines, missed = report.table(ours, theirs)
    assert lines[1:] == [
        ("PUT, 64 connections", "800 /s", "100 /s", "8.00", "≥ 4", "yes"),
        ("PUT, 64 connections, CPU each", "50 µs", "100 µs", "0.50", "≤ 0.25", "**no**"),
    ]
    assert missed == ["PUT, 64 connections, CPU each"]


def test_one_product_alone_has_no_ratio_and_misses_no_bar():
    lines, missed = report.table(report.medians({"put-64": [{"per_s": 1}]}), {})
    assert lines[1:] == [("PUT, 64 connections", "1 /s", "–", "–", "≥ 4", "")]
    assert missed == []


def test_the_page_keeps_what_stands_around_the_table():
    page = "before\n%s\nold\n%s\nafter\n" % (report.BEGIN, report.END)
    assert report.replace_table(page, "new") == page.replace("old", "new")
    with pytest.raises(ValueError):
        report.replace_table("no marks", "new")
    with open(os.path.join(HERE, "..", "..", "docs", "benchmarks.md"), encoding="utf-8") as file:
        report.replace_table(file.read(), "new")


def test_a_missing_consul_is_said_before_anything_is_started(tmp_path):
    program = tmp_path / "proconsul"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    environment = {**os.environ, "PROCONSUL_BINARY": str(program),
                   "CONSUL_BINARY": str(tmp_path / "none")}
    done = subprocess.run([sys.executable, os.path.join(HERE, "run"), "--dir", str(tmp_path)],
                          env=environment, stderr=subprocess.PIPE, timeout=120, check=False)
    assert done.returncode == 2
    assert b"CONSUL_BINARY" in done.stderr
