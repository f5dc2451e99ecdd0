"""The figures of all rounds as one table, for the terminal and for docs/benchmarks.md."""
import collections
import statistics

# A ratio is ours divided by the other's. A bar says what the ratio must be: at least, or at most.
Row = collections.namedtuple("Row", "measurement figure title unit bar")

AT_LEAST, AT_MOST = "≥", "≤"

ROWS = (
    Row("put-1", "per_s", "PUT, 1 connection", "/s", None),
    Row("put-1", "p50_ms", "PUT, 1 connection, median", "ms", None),
    Row("put-1", "cpu_us", "PUT, 1 connection, CPU each", "µs", None),
    Row("put-64", "per_s", "PUT, 64 connections", "/s", (AT_LEAST, 4)),
    Row("put-64", "p99_ms", "PUT, 64 connections, 99th percentile", "ms", None),
    Row("put-64", "cpu_us", "PUT, 64 connections, CPU each", "µs", (AT_MOST, 0.25)),
    Row("get-leader", "per_s", "GET from the leader, 64 connections", "/s", (AT_LEAST, 1.8)),
    Row("get-leader", "p99_ms", "GET from the leader, 99th percentile", "ms", None),
    Row("get-leader", "cpu_us", "GET from the leader, CPU each", "µs", None),
    Row("get-follower", "per_s", "GET from a follower, 64 connections", "/s", (AT_LEAST, 1.8)),
    Row("get-follower", "p99_ms", "GET from a follower, 99th percentile", "ms", None),
    Row("get-follower", "cpu_us", "GET from a follower, CPU each", "µs", None),
    Row("dns-a", "per_s", "DNS, A of `master.patroni.service.consul`", "/s", (AT_LEAST, 2)),
    Row("dns-a", "cpu_us", "DNS, A, CPU each", "µs", None),
    Row("dns-srv", "per_s", "DNS, SRV of `db-replica.service.consul`", "/s", (AT_LEAST, 2)),
    Row("dns-srv", "cpu_us", "DNS, SRV, CPU each", "µs", None),
    Row("memory-idle", "resident_mib", "memory of the five, idle", "MiB", (AT_MOST, 0.2)),
    Row("memory-loaded", "resident_mib", "memory of the five, after the load", "MiB",
        (AT_MOST, 0.2)),
    Row("memory-loaded", "anonymous_mib", "of that, not backed by files", "MiB", None),
    Row("failover", "failover_s", "leader killed until a write is acknowledged", "s", None),
)

BEGIN, END = "<!-- table: benchmarks -->", "<!-- end of table -->"


def medians(samples):
    """{measurement: [figures, ...]} of one product to {(measurement, figure): median}."""
    result = {}
    for measurement, rounds in samples.items():
        for figure in rounds[0]:
            result[measurement, figure] = statistics.median(one[figure] for one in rounds)
    return result


def format_number(value):
    if value is None:
        return "–"
    if value >= 1000:
        return "{:,.0f}".format(value)
    return "{:.0f}".format(value) if value >= 100 else "{:.3g}".format(value)


def bar_met(bar, ratio):
    return ratio >= bar[1] if bar[0] == AT_LEAST else ratio <= bar[1]


def table(ours, theirs):
    """Lines of cells, the header first, and the titles of the rows that miss their bar.

    `ours` and `theirs` are medians; either may lack rows, and a row that both lack is left out.
    """
    lines = [("measured", "Proconsul", "Consul", "ratio", "bar", "met")]
    missed = []
    for row in ROWS:
        key = row.measurement, row.figure
        if key not in ours and key not in theirs:
            continue
        our, their = ours.get(key), theirs.get(key)
        cells = ["%s %s" % (format_number(value), row.unit) if value is not None else "–"
                 for value in (our, their)]
        ratio = our / their if our is not None and their else None
        cells.append("{:.2f}".format(ratio) if ratio is not None else "–")
        cells.append("%s %g" % row.bar if row.bar else "")
        met = ""
        if row.bar and ratio is not None:
            met = "yes" if bar_met(row.bar, ratio) else "**no**"
            if met != "yes":
                missed.append(row.title)
        lines.append((row.title, *cells, met))
    return lines, missed


def as_text(lines):
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join([line[0].ljust(widths[0])] +
                               [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])])
                     for line in lines)


def as_markdown(lines, facts):
    """The table, and below it what it was measured with, a list of (name, text)."""
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    rows.insert(1, "|---|--:|--:|--:|--:|---|")
    return "\n".join(rows + [""] + ["- %s: %s" % fact for fact in facts])


def replace_table(page, markdown):
    """The page with everything between the two marks replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page lacks the marks %s and %s" % (BEGIN, END))
    return before + begin + "\n" + markdown + "\n" + end + after
