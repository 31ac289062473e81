"""Tables, ratios, goals and parsers of perf/."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf import contenders, iperf_load, report, versus
from perf.measure import CpuClock, Load, Trial, group_addresses, parse_idle
from perf.report import Goal, goal_table, median, ratio, ratio_of_rounds, table, text
from pipeline.lab.programs import LabError


def trial(pps: float, *, loss: float = 0.0, cpu_s: float = 1.0, receivers: int = 3) -> Trial:
    gbit = pps * (1 - loss) * 1316 * 8 * receivers / 1e9
    return Trial(pps, int(pps), 1.0, loss, 0, gbit, cpu_s, {"p50": 1.0, "p99": 2.0, "p999": 3.0, "max": 4.0})


def test_table_is_markdown() -> None:
    """Goal: a printed table is valid Markdown, so documents can quote it.
    Method: a table with every kind of cell."""
    lines = table(("what", "n"), [["a", 1234], ["bb", None], ["c", 0.123], ["d", "x"]]).splitlines()
    assert lines[0] == "| what |     n |"
    assert lines[1] == "| ---- | ----: |"
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["1,234", "–", "0.12", "x"]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0.00"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346"), (7, "7"), (-0.5, "-0.50")]
)
def test_figures_have_three_significant_digits(value: float, shown: str) -> None:
    """Goal: figures have no more digits than they are precise.  Method: values of each size."""
    assert text(value) == shown


def test_ratios_are_taken_within_a_round() -> None:
    """Goal: a round in which the machine is slow does not change the ratio.
    Method: the machine is 10 times slower in one of three rounds; rounds without a figure are ignored."""
    assert ratio_of_rounds([30.0, 3.0, 33.0], [10.0, 1.0, 11.0]) == pytest.approx(3.0)
    assert ratio_of_rounds([30.0, None, 33.0], [10.0, 1.0, None]) == pytest.approx(3.0)
    assert ratio_of_rounds([], []) is None
    assert ratio_of_rounds([1.0], []) is None
    assert ratio(1.0, 0.0) is None
    assert median([None, None]) is None


def test_goal_verdicts_at_their_bounds() -> None:
    """Goal: the verdicts are right at the bounds.  Method: values at, above and below, in both directions."""
    at_least, at_most = Goal("rate", 2, 3), Goal("cost", 0.45, 0.3, at_most=True)
    assert [at_least.verdict(value) for value in (1.9, 2.0, 3.0, None)] == [
        *("NOT reached", "reached", "aim reached", "not measured"),
    ]
    assert [at_most.verdict(value) for value in (0.46, 0.45, 0.3)] == ["NOT reached", "reached", "aim reached"]
    assert "| ≤ 0.45 |" in goal_table([(at_most, 0.4)])


def test_busy_time_excludes_idle_wait_and_steal() -> None:
    """Goal: busy time is the time of all CPUs less idle, I/O wait and steal.
    Method: two lines of /proc/stat, one second apart, on two CPUs: 0.5 s idle, 0.25 s I/O wait, 0.25 s steal."""
    assert parse_idle("cpu  10 20 30 1000 5 7 8 9 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n") == 1000 + 5 + 9
    before = CpuClock(10.0, parse_idle("cpu 0 0 0 100 0 0 0 0 0 0") / 100, 2)
    after = CpuClock(11.0, parse_idle("cpu 90 0 0 150 25 0 0 25 0 0") / 100, 2)
    assert after.busy_since(before) == pytest.approx(1.0)


def test_trial_passes_up_to_a_loss_of_a_thousandth() -> None:
    """Goal: a trial passes up to 0.1 % loss at the worst receiver, and its CPU cost is per Gbit of all receivers.
    Method: trials with computed figures."""
    assert trial(1000, loss=0.001).passed
    assert not trial(1000, loss=0.0011).passed
    assert trial(1000, cpu_s=2.0, receivers=1).cpu_per_gbit == pytest.approx(2.0 / (1000 * 1316 * 8 / 1e9))
    assert Trial(1.0, 0, 0.0, 1.0, 0, 0.0, 0.0, {}).cpu_per_gbit is None
    assert Load(size=(100, 300)).mean_size == 200


def test_group_addresses_are_consecutive() -> None:
    """Goal: the joined groups are those to which the tool sends, also after a carry into the next byte.
    Method: 300 addresses."""
    groups = group_addresses(300)
    assert (groups[0], groups[254], groups[255], groups[299]) == (
        "239.77.0.1",
        "239.77.0.255",
        "239.77.1.0",
        "239.77.1.44",
    )


def test_each_program_has_groups_of_its_own() -> None:
    """Goal: no two programs share a group, and together they have all groups that are joined.
    Method: three programs with four groups each, and one program with one group."""
    load = Load(groups=4, programs=3)
    assert load.group_lists == ["239.77.0.1+4", "239.77.0.5+4", "239.77.0.9+4"]
    assert load.addresses == group_addresses(12)
    assert Load().group_lists == Load().addresses == ["239.77.0.1"]


def test_versus_goals_compare_the_named_networks() -> None:
    """Goal: each goal compares the networks that it names.
    Method: a plan with two rounds of computed trials, ours at 5 times the rate of VXLAN and 8 times that of a VPN."""
    plan = versus.plan(versus.parse(["--kinds", "ours-4,vxlan,tinc,fastd", "--receivers", "3"]))
    for slow in (1.0, 0.1):
        for kind, pps in (("ours-4", 80_000), ("vxlan", 16_000), ("tinc", 10_000), ("fastd", 8_000)):
            case = versus.Case(kind, 3, versus.SIZE)
            plan.found.setdefault(case, []).append(trial(pps * slow, cpu_s=2.0 * slow))
    assert versus.fastest_vpn(plan, 3) == "tinc"
    values = {goal.what: value for goal, value in versus.goals(plan)}
    assert values["packets/s, 3 receivers, × VXLAN"] == pytest.approx(5, rel=0.01)
    assert values["packets/s, 3 receivers, × tinc"] == pytest.approx(8, rel=0.01)
    assert values["CPU per delivered Gbit, 3 receivers, × VXLAN"] == pytest.approx(0.2, rel=0.01)
    assert values["packets/s, 1 receiver, × VXLAN"] is None
    assert "| tinc" in versus.rate_table(plan, 3, versus.SIZE)


def test_quick_version_measures_other_networks_with_three_receivers() -> None:
    """Goal: with --quick, networks other than ours and VXLAN are measured with 3 receivers only.
    Method: the plan of that option."""
    plan = versus.plan(versus.parse(["--quick"]))
    assert {kind for kind, count in plan.networks() if count != 3} == {"ours-4", "vxlan"}
    assert set(versus.QUICK_KINDS) <= set(contenders.kinds())


def test_named_kinds_are_measured_with_all_receivers() -> None:
    """Goal: named kinds are measured with every number of receivers, and an unknown kind is refused.
    Method: the plan of such options."""
    plan = versus.plan(versus.parse(["--quick", "--kinds", "ours-4,ours-4-insecure", "--receivers", "1,4"]))
    assert len(plan.networks()) == 4
    with pytest.raises(SystemExit, match="2"):
        versus.parse(["--kinds", "ours-4,nix"])


CLIENT = """[  1] local 10.77.0.1 port 58023 connected with 239.77.0.1 port 5002
[  1] 0.0000-2.0004 sec  11.9 MBytes  50.0 Mbits/sec
[  1] Sent 9503 datagrams
"""
SERVER = """[  1] local 239.77.0.1%mcast0 port 5002 connected with 10.77.0.1 port 58023
[ ID] Interval       Transfer     Bandwidth        Jitter   Lost/Total Datagrams
[  1] 0.0000-2.0011 sec  11.9 MBytes  50.0 Mbits/sec   0.347 ms 12/9502 (0.13%)
[  1] 0.0000-2.0011 sec  3 datagrams received out-of-order
"""


def test_iperf_loss_excludes_the_end_mark() -> None:
    """Goal: loss is computed from the datagrams sent and received, without iperf's end mark.
    Method: reports of iperf 2.1.8."""
    assert iperf_load.parse_client(CLIENT) == (50.0, 9503)
    server = iperf_load.parse_server(SERVER)
    assert server == iperf_load.ServerReport(50.0, 0.347, 9490)
    load = iperf_load.Load("ours-4", 50, 50.0, 9503, 9490, 50.0, 0.3, None)
    assert load.loss == pytest.approx(12 / 9502)
    assert iperf_load.parse_server("Server listening on UDP port 5002") is None
    with pytest.raises(LabError):
        iperf_load.parse_client("connect failed: Network is unreachable")


def test_perf_readme_stays_short() -> None:
    """Goal: perf/README.md has at most 300 lines; older figures are in its history.  Method: count them."""
    assert (Path(report.__file__).parent / "README.md").read_text().count("\n") <= 300
